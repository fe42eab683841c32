"""A file is there as a whole, or as it was before."""
import os

import pytest

from cae_mm.atomic import AtomicLocalBackend


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch):
    file = tmp_path / 'sub' / 'a.pth'
    backend = AtomicLocalBackend()
    backend.put(b'first', file)

    def killed(*_):
        raise KeyboardInterrupt

    for step in ('fsync', 'replace'):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, step, killed)
            backend.put(b'second', file)
        assert file.read_bytes() == b'first'
    backend.put_text('third', file)
    assert file.read_text() == 'third'
