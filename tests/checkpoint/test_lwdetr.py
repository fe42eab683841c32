"""The encoder in LW-DETR: its loader's rule, and the ViT of transformers."""
import pytest
import torch
import transformers

from cae_mm.checkpoint.convert import convert_file
from cae_mm.checkpoint.export import export, read_model
from cae_mm.models import CAEViT

ARCH = dict(embed_dims=48, num_layers=3, num_heads=12)


@pytest.fixture
def checkpoint(tmp_path):
    """An encoder with random numbers, as a pre-training here writes it."""
    def write(**options):
        encoder = CAEViT(**{'arch': ARCH, 'img_size': 224, **options})
        for parameter in encoder.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        torch.save({f'backbone.{name}': value for name, value in encoder.state_dict().items()},
                   tmp_path / 'cae.pth')
        return encoder, tmp_path / 'cae.pth'
    return write


def test_their_loader_finds_all_it_has(checkpoint, tmp_path):
    encoder, path = checkpoint()
    report = convert_file(path, tmp_path / 'lwdetr.pth', 'lwdetr', num_heads=12)
    assert report[-1].endswith(f'--pretrained_encoder {tmp_path}/lwdetr.pth')
    # As it reads a file: all names without 'encoder.', whatever does not fit passed by.
    given = {name.replace('encoder.', ''): value
             for name, value in torch.load(tmp_path / 'lwdetr.pth')['model'].items()}
    own = {'patch_embed.proj.weight', 'patch_embed.proj.bias', 'pos_embed'} | {
        f'blocks.{i}.{name}' for i in range(3) for name in (
            'norm1.weight', 'norm1.bias', 'attn.q_bias', 'attn.v_bias', 'attn.qkv.weight',
            'attn.proj.weight', 'attn.proj.bias', 'norm2.weight', 'norm2.bias', 'mlp.fc1.weight',
            'mlp.fc1.bias', 'mlp.fc2.weight', 'mlp.fc2.bias', 'gamma_1', 'gamma_2')}
    assert given.keys() == own
    assert torch.equal(given['blocks.2.attn.q_bias'], encoder.blocks[2].attn.q_bias)
    assert given['pos_embed'].shape == (1, 197, 48)


@pytest.mark.parametrize('options, reason', [
    (dict(arch=dict(ARCH, num_heads=4)), '12 heads and patches of 16 pixels, this encoder 4 and 16'),
    (dict(patch_size=32), 'this encoder 12 and 32'), (dict(img_size=160), '101 rows: --img-size 224'),
    (dict(use_rel_pos_bias=True), 'no relative positions')])
def test_other_encoders_are_refused(checkpoint, tmp_path, options, reason):
    encoder, path = checkpoint(**options)
    with pytest.raises(ValueError, match=reason):
        convert_file(path, tmp_path / 'lwdetr.pth', 'lwdetr', num_heads=encoder.blocks[0].attn.num_heads)
    assert not (tmp_path / 'lwdetr.pth').exists()


def test_transformers(checkpoint, tmp_path):
    _, path = checkpoint()
    report = export(read_model(path, num_heads=12), tmp_path / 'vit', 'lwdetr')
    assert 'lwdetr differs from PyTorch by' in report[0]
    model = transformers.LwDetrViTBackbone.from_pretrained(tmp_path / 'vit', window_block_indices=[0, 2])
    [maps] = model(torch.randn(2, 3, 128, 192)).feature_maps
    assert maps.shape == (2, 48, 8, 12)
