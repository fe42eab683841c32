"""Pictures under the mask."""
import pytest
import torch
from mmpretrain.registry import MODELS
from PIL import Image

from cae_mm.visualization import draw_rows, in_rows, reconstruct

SIZES = dict(embed_dims=16, num_heads=2, depth=1)
TOKENIZER = dict(type='DiscreteVAE', num_codes=8, hidden_dims=8, code_dims=8, num_groups=2,
                 allow_random=True)  # stride 2


def build(target, num_outputs, size=(16, 24)):
    """A CAE with patches of 4 pixels."""
    grid = dict(grid_size=(size[0] // 4, size[1] // 4), **SIZES)
    return MODELS.build(dict(
        type='mmpretrain.ContextAutoencoder', target_generator=target,
        backbone=dict(type='CAEViT', img_size=size, patch_size=4, drop_path_rate=0.9,
                      arch=dict(embed_dims=16, num_layers=2, num_heads=2)),
        neck=dict(type='LatentContextualRegressor', **grid),
        head=dict(type='CAEDecoder', num_outputs=num_outputs, **grid)))


@pytest.fixture
def images():
    return torch.randint(256, (3, 3, 16, 24), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mask():
    mask = torch.zeros(3, 24, dtype=torch.bool)
    mask[0, :9] = mask[1, 5:14] = mask[2, 15:] = True
    return mask


def hidden_pixels(mask):
    patches = mask.view(3, 1, 4, 6).expand(-1, 3, -1, -1)
    return patches.repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_pixels(images, mask):
    model = build(dict(type='PixelTarget', patch_size=4), 48).train()
    pictures = reconstruct(model, model.data_preprocessor, images, mask)
    hidden, true = hidden_pixels(mask), images / 255
    torch.testing.assert_close(pictures['image'], true)
    torch.testing.assert_close(pictures['true targets, decoded'], true, atol=2e-5, rtol=0)
    torch.testing.assert_close(pictures['prediction, decoded'][~hidden], true[~hidden], atol=2e-5, rtol=0)
    assert (pictures['prediction, decoded'] - true)[hidden].abs().mean() > 0.05
    torch.testing.assert_close(pictures['prediction in the image'][~hidden], true[~hidden])
    torch.testing.assert_close(pictures['prediction in the image'][hidden],
                               pictures['prediction, decoded'][hidden])
    assert (pictures['what the encoder sees'][hidden] == 0.5).all()
    assert model.training


def test_perfect_logits_give_the_upper_bound(images, monkeypatch):
    model = build(TOKENIZER, 8, (16, 16))
    images, mask = images[..., :16], (torch.arange(16) % 2 == 0).expand(3, -1)
    forward = model.forward_masked

    def oracle(*args):
        out = forward(*args)
        out.logits = torch.nn.functional.one_hot(out.ids, 8).float()
        return out

    predicted = reconstruct(model, model.data_preprocessor, images, mask)
    monkeypatch.setattr(model, 'forward_masked', oracle)
    perfect = reconstruct(model, model.data_preprocessor, images, mask)
    torch.testing.assert_close(perfect['prediction, decoded'], perfect['true targets, decoded'])
    assert not torch.equal(predicted['prediction, decoded'], predicted['true targets, decoded'])
    # Patches of 4 and a stride of 2: the tokenizer sees the image at half its size.
    assert perfect['image'].shape == (3, 3, 8, 8)
    assert perfect['prediction, decoded'].shape == (3, 3, 8, 8)


def test_drawing_shows_every_picture(images, mask, tmp_path):
    model = build(dict(type='PixelTarget', patch_size=4), 48)
    pictures = reconstruct(model, model.data_preprocessor, images, mask)
    draw_rows(*in_rows(pictures), tmp_path / 'new' / 'figure.png')
    figure = Image.open(tmp_path / 'new' / 'figure.png').convert('RGB')
    assert figure.width > 5 * 100 and figure.height > 3 * 80
    for column in range(5):
        part = figure.crop((column * figure.width // 5, 0, (column + 1) * figure.width // 5,
                            figure.height))
        assert len(part.getcolors(1 << 20)) > 30, f'column {column} is blank'
