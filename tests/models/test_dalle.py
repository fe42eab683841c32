"""The published tokenizer: mmpretrain's network, codes where they are needed, pictures."""
import pytest
import torch
from mmpretrain.registry import MODELS

from cae_mm.models.targets.dalle import DALLEDecoder, DALLETokenizer

SIZES = dict(num_codes=24, hidden_dims=8, num_groups=3, blocks_per_group=1)


def test_same_names_and_values_as_mmpretrain():
    theirs = MODELS.build(dict(type='DALL-E', n_hid=8, vocab_size=24, n_blk_per_group=1))
    ours = DALLETokenizer(num_codes=24, hidden_dims=8, blocks_per_group=1, allow_random=True)
    ours.encoder.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 32, 48)
    torch.testing.assert_close(ours.encoder(images), theirs(images), rtol=0, atol=1e-5)


def test_masked_positions_equal_the_whole_grid():
    tokenizer = DALLETokenizer(allow_random=True, **SIZES)
    images = torch.rand(3, 3, 24, 32)
    whole = tokenizer.encoder(0.8 * images + 0.1).argmax(1).flatten(1)
    masked = torch.rand(whole.shape).argsort(1)[:, :20]
    assert torch.equal(tokenizer.get_targets(images, masked), whole.gather(1, masked))
    assert whole.unique().numel() > 1


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
    decoder = DALLEDecoder(**SIZES)
    torch.save(decoder.state_dict(), tmp_path / 'decoder.pth')
    torch.save(tokenizer.encoder.state_dict(), tmp_path / 'encoder.pth')
    named = {part: dict(type='Pretrained', checkpoint=tmp_path / f'{part}.pth')
             for part in ('encoder', 'decoder')}
    painted = DALLETokenizer(init_cfg=named['encoder'], decoder=named['decoder'], **SIZES)
    assert torch.equal(painted.decoder.blocks.input.w, decoder.blocks.input.w)
    picture = painted.reconstruct(predictions, images)
    assert picture.shape == images.shape and 0 <= picture.min() and picture.max() <= 1
    # The decoder alone makes no tokenizer.
    with pytest.raises(FileNotFoundError, match='random weights'):
        DALLETokenizer(decoder=named['decoder'], **SIZES)


def test_full_size_on_the_meta_device():
    with torch.device('meta'):
        tokenizer = DALLETokenizer(allow_random=True)
    # 8192 codes, width 256, as published.
    assert sum(p.numel() for p in tokenizer.parameters()) == 53_786_240
