"""A file is there as a whole, or as it was before."""
import os

import mmengine
import pytest

from cae_mm.atomic import write_atomically


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch):
    file = tmp_path / 'sub' / 'a.pth'
    write_atomically(b'first', file)

    def killed(*_):
        raise KeyboardInterrupt

    for step in ('fsync', 'replace'):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, step, killed)
            write_atomically(b'second', file)
        assert file.read_bytes() == b'first'
    assert not list(file.parent.glob('*.partial*'))


def test_a_full_disk(tmp_path, small_disk):
    """Nothing is left, the former file stays, and the error has its name and the bytes."""
    file = tmp_path / 'a.pth'
    file.write_bytes(b'first')
    with small_disk(10), pytest.raises(OSError, match=r'20 bytes are needed, [\d,]+ are free.*a\.pth'):
        write_atomically(b'x' * 20, file)
    assert os.listdir(tmp_path) == ['a.pth'] and file.read_bytes() == b'first'


def test_links_and_devices_stay(tmp_path):
    (tmp_path / 'link').symlink_to(tmp_path / 'a')
    os.mkfifo(tmp_path / 'pipe')
    reader = os.open(tmp_path / 'pipe', os.O_RDONLY | os.O_NONBLOCK)
    for name in ('link', 'pipe'):
        write_atomically(b'text', tmp_path / name)
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'a').read_bytes() == b'text'
    assert os.read(reader, 9) == b'text' and (tmp_path / 'pipe').is_fifo()
    os.close(reader)


def test_mmengine_writes_so(tmp_path, small_disk):
    with small_disk(10), pytest.raises(OSError, match='needed'):
        mmengine.dump(list(range(20)), tmp_path / 'a.json')
    assert not os.listdir(tmp_path)
