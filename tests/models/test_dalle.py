"""The published tokenizer: read safely, loaded whole, evaluated where it is needed."""
import hashlib
import os
import pathlib
import sys
import types

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

from cae_mm.models.targets import weights
from cae_mm.models.targets.dalle import DALLEDecoder, DALLEEncoder, DALLETokenizer

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


def test_pickled_module_is_read_and_not_executed(encoder, foreign, tmp_path, monkeypatch):
    trace = tmp_path / 'trace'
    foreign.extra = Bomb(exec, f'open({str(trace)!r}, "w").close()')
    torch.save(foreign, tmp_path / 'encoder.pkl')
    torch.load(tmp_path / 'encoder.pkl', weights_only=False)
    assert trace.exists()  # the ordinary way does run it
    trace.unlink()

    with monkeypatch.context() as context:
        context.delitem(sys.modules, 'gone_package')
        tokenizer = DALLETokenizer(tmp_path / 'encoder.pkl', **SIZES)
    assert not trace.exists()
    want = encoder.state_dict()
    found = tokenizer.encoder.state_dict()
    assert found.keys() == want.keys()
    assert all(torch.equal(found[name], want[name]) for name in want)


def test_pickle_that_calls_the_system_is_refused(foreign, tmp_path):
    trace = tmp_path / 'trace'
    foreign.extra = Bomb(os.system, f'touch {trace}')
    torch.save(foreign, tmp_path / 'encoder.pkl')
    with pytest.raises(ValueError, match='convert it'):
        DALLETokenizer(tmp_path / 'encoder.pkl', **SIZES)
    assert not trace.exists()


def test_pickled_module_of_the_old_format_is_refused(foreign, tmp_path):
    torch.save(foreign, tmp_path / 'old.pkl', _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match='convert it'):
        DALLETokenizer(tmp_path / 'old.pkl', **SIZES)


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'state_dict': s, 'meta': {'epoch': 1}}])
@pytest.mark.parametrize('zipped', [True, False])
def test_state_dicts(encoder, tmp_path, wrap, zipped):
    torch.save(wrap(encoder.state_dict()), tmp_path / 'encoder.pth',
               _use_new_zipfile_serialization=zipped)
    tokenizer = DALLETokenizer(tmp_path / 'encoder.pth', **SIZES)
    assert torch.equal(tokenizer.encoder.blocks.input.w, encoder.blocks.input.w)


def test_same_names_and_values_as_mmpretrain(tmp_path):
    theirs = MODELS.build(dict(type='DALL-E', n_hid=8, vocab_size=24, n_blk_per_group=1))
    torch.save(theirs.state_dict(), tmp_path / 'encoder.pth')
    ours = DALLETokenizer(tmp_path / 'encoder.pth', num_codes=24, hidden_dims=8, blocks_per_group=1)
    images = torch.rand(2, 3, 32, 48)
    torch.testing.assert_close(ours.encoder(images), theirs(images), rtol=0, atol=1e-5)


def test_checksum(encoder, tmp_path):
    path = tmp_path / 'encoder.pth'
    torch.save(encoder.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    DALLETokenizer(path, sha256=digest, **SIZES)
    with pytest.raises(ValueError, match=digest):
        DALLETokenizer(path, sha256='0' * 64, **SIZES)


def test_url_is_downloaded_once_and_checked(encoder, tmp_path, monkeypatch):
    torch.save(encoder.state_dict(), tmp_path / 'served.pth')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    calls = []

    def download(url, target, **kwargs):
        calls.append(url)
        pathlib.Path(target).write_bytes((tmp_path / 'served.pth').read_bytes())

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    for _ in range(2):
        DALLETokenizer('https://example.org/some/encoder.pth?version=1', **SIZES)
    assert len(calls) == 1
    assert (tmp_path / 'hub/checkpoints/encoder.pth').is_file()


@pytest.mark.parametrize('checkpoint', [None, 'nowhere/encoder.pkl'])
def test_missing_checkpoint_says_where_to_get_one(checkpoint):
    with pytest.raises(FileNotFoundError) as error:
        DALLETokenizer(checkpoint, **SIZES)
    for hint in ('openaipublic.com', 'onedl.ai', 'configs/tokenizer', str(checkpoint or '')):
        assert hint in str(error.value)


def test_other_architecture_is_named(encoder, tmp_path):
    torch.save(encoder.state_dict(), tmp_path / 'encoder.pth')
    with pytest.raises(ValueError, match='blocks.group_3.block_1'):
        DALLETokenizer(tmp_path / 'encoder.pth', **{**SIZES, 'num_groups': 2})
    torch.save({'w': 'text'}, tmp_path / 'text.pth')
    with pytest.raises(ValueError, match='not a state dict'):
        weights.read_state_dict(tmp_path / 'text.pth')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'encoder.pth').read_bytes()[:1000])
    with pytest.raises(ValueError, match='truncated'):
        DALLETokenizer(tmp_path / 'cut.pth', **SIZES)


def test_masked_positions_equal_the_whole_grid():
    tokenizer = DALLETokenizer(allow_random=True, **SIZES)
    images = torch.rand(3, 3, 24, 32)
    whole = tokenizer.encoder(0.8 * images + 0.1).argmax(1).flatten(1)
    masked = torch.rand(whole.shape).argsort(1)[:, :20]
    assert torch.equal(tokenizer.get_targets(images, masked), whole.gather(1, masked))
    assert whole.unique().numel() > 1


def test_frozen_and_always_evaluating():
    tokenizer = DALLETokenizer(allow_random=True, **SIZES).train()
    assert not tokenizer.training and not tokenizer.encoder.training
    assert not any(p.requires_grad for p in tokenizer.parameters())


def test_grid():
    tokenizer = DALLETokenizer(allow_random=True, **SIZES)
    assert tokenizer.grid_size(48, 32) == (12, 8)
    with pytest.raises(ValueError, match='30 x 32'):
        tokenizer.get_targets(torch.rand(1, 3, 30, 32), torch.zeros(1, 1, dtype=torch.long))


def test_pictures_need_the_decoder(tmp_path):
    images, predictions = torch.rand(2, 3, 16, 24), torch.rand(2, 4 * 6, 24)
    tokenizer = DALLETokenizer(allow_random=True, **SIZES)
    with pytest.raises(ValueError, match='decoder.pkl'):
        tokenizer.reconstruct(predictions, images)
    source = DALLETokenizer(allow_random=True, **SIZES)
    torch.save(DALLEDecoder(**SIZES).state_dict(), tmp_path / 'decoder.pth')
    torch.save(source.encoder.state_dict(), tmp_path / 'encoder.pth')
    picture = DALLETokenizer(tmp_path / 'encoder.pth', decoder=tmp_path / 'decoder.pth',
                             **SIZES).reconstruct(predictions, images)
    assert picture.shape == images.shape and 0 <= picture.min() and picture.max() <= 1


def test_full_size_on_the_meta_device():
    with torch.device('meta'):
        tokenizer = DALLETokenizer(allow_random=True)
    # 8192 codes, width 256, as published.
    assert sum(p.numel() for p in tokenizer.parameters()) == 53_786_240


def test_a_failed_download_says_where_to_put_the_file(monkeypatch, tmp_path):
    def refuse(url, path):
        raise OSError('no network')

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    with pytest.raises(FileNotFoundError, match='no network.*encoder.pth.*configs/tokenizer'):
        DALLETokenizer('https://example.org/encoder.pth')
