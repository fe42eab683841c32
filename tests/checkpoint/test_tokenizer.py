"""Files of tokenizers: read without running them, checked, loaded whole."""
import hashlib
import os
import sys
import types

import pytest
import torch
from mmengine.model import initialize
from torch import nn

from cae_mm.checkpoint.sources import fetch
from cae_mm.models.targets.dalle import DALLEEncoder

SIZES = dict(num_codes=24, hidden_dims=8, num_groups=3, blocks_per_group=1)


class Bomb:
    """Unpickling it the ordinary way runs a command."""

    def __init__(self, function, argument):
        self.function, self.argument = function, argument

    def __reduce__(self):
        return self.function, (self.argument,)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return DALLEEncoder(**SIZES)


@pytest.fixture
def foreign(encoder, monkeypatch):
    """A module whose class comes from a package that is gone when the file is read."""
    package = types.ModuleType('gone_package')
    package.Encoder = type('Encoder', (nn.Module,), {'__module__': 'gone_package'})
    monkeypatch.setitem(sys.modules, 'gone_package', package)
    module = package.Encoder()
    module.blocks = encoder.blocks
    return module


def load(checkpoint, sha256=None, **changes):
    """The state of another encoder, filled from the file by mmengine's registry of initializers."""
    encoder = DALLEEncoder(**{**SIZES, **changes})
    initialize(encoder, dict(type='PretrainedTokenizer', checkpoint=checkpoint, sha256=sha256))
    return encoder.state_dict()


@pytest.mark.parametrize('zipped', [True, False])
def test_a_pickled_module_is_read_without_its_classes(encoder, foreign, tmp_path, monkeypatch, zipped):
    torch.save(foreign, tmp_path / 'encoder.pkl', _use_new_zipfile_serialization=zipped)
    monkeypatch.delitem(sys.modules, 'gone_package')
    found = load(tmp_path / 'encoder.pkl')
    assert all(torch.equal(found[name], value) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize('function', [exec, os.system])
def test_a_pickled_module_that_calls_something_is_refused(foreign, tmp_path, function):
    trace = tmp_path / 'trace'
    foreign.extra = Bomb(function, f'touch {trace}')
    torch.save(foreign, tmp_path / 'encoder.pkl')
    with pytest.raises(ValueError, match=f'encoder.pkl is refused: it asks for .*{function.__name__}'):
        load(tmp_path / 'encoder.pkl')
    assert not trace.exists()


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'state_dict': s, 'meta': {'epoch': 1}}])
@pytest.mark.parametrize('zipped', [True, False])
def test_state_dicts(encoder, tmp_path, wrap, zipped):
    torch.save(wrap(encoder.state_dict()), tmp_path / 'encoder.pth',
               _use_new_zipfile_serialization=zipped)
    found = load(tmp_path / 'encoder.pth')
    assert all(torch.equal(found[name], value) for name, value in encoder.state_dict().items())


def test_a_digest(encoder, tmp_path):
    path = tmp_path / 'encoder.pth'
    torch.save(encoder.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    load(path, sha256=digest)
    load(f'{path}#sha256={digest}')
    for given in (dict(checkpoint=path, sha256='0' * 64), dict(checkpoint=f'{path}#sha256={"0" * 64}')):
        with pytest.raises(ValueError, match=digest):
            load(**given)


def test_a_failed_download_says_where_to_put_the_file(monkeypatch, tmp_path):
    def refuse(url, path):
        raise OSError('no network')

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    with pytest.raises(FileNotFoundError, match='no network.*encoder.pth'):
        fetch('https://example.org/encoder.pth')


def test_what_does_not_fit_is_named(encoder, tmp_path):
    torch.save(encoder.state_dict(), tmp_path / 'encoder.pth')
    with pytest.raises(ValueError, match='blocks.group_3.block_1'):
        load(tmp_path / 'encoder.pth', num_groups=2)
    torch.save({'w': 'text'}, tmp_path / 'text.pth')
    with pytest.raises(ValueError, match='text.pth is refused: there is no state dict'):
        load(tmp_path / 'text.pth')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'encoder.pth').read_bytes()[:1000])
    with pytest.raises(ValueError, match='truncated'):
        load(tmp_path / 'cut.pth')
