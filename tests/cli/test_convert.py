"""``tools/convert.py``, as typed."""
import pytest
import timm
import torch
from mmpretrain.registry import MODELS

from cae_mm.checkpoint.files import read_checkpoint
from cae_mm.models import CAEViT
from cae_mm.positions import sincos_positions

SIZES = dict(img_size=32, patch_size=8)
ARCH = dict(embed_dims=24, num_layers=2, num_heads=4)


@pytest.fixture
def ours(tmp_path):
    """A fine-tuned classifier as the runner saves it, in ``tmp_path/ours.pth``; its state dict."""
    state = {'backbone.' + k: v for k, v in CAEViT(ARCH, **SIZES).state_dict().items()}
    state |= {'head.fc.weight': torch.randn(5, 24), 'head.fc.bias': torch.randn(5)}
    torch.save(dict(state_dict=state, meta=dict(epoch=3, dataset_meta=dict(classes=('a', 'b')))),
               tmp_path / 'ours.pth')
    return state


@pytest.fixture
def convert(call_tool, tmp_path):
    """A function that converts between files of ``tmp_path`` and returns the file's content."""

    def run(source, out, *arguments):
        call_tool('convert.py', tmp_path / source, tmp_path / out, *arguments)
        return read_checkpoint(tmp_path / out)

    return run


def test_there_and_back_by_files_of_every_kind(run_tool, convert, ours, tmp_path, capsys):
    first = run_tool('convert.py', 'ours.pth', 'timm.safetensors', '--to', 'timm')
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    for line in ('cae_mm, classifier: 2 blocks, width 24, patches of 8x8', 'unexpected 0',
                 'wrote 36 arrays of timm to timm.safetensors'):
        assert line in lines
    assert "num_classes=5, global_pool='avg', checkpoint_path='timm.safetensors'" in first.stdout
    names = ('timm.safetensors', 'official.pth', 'vit.pth', 'beit.safetensors', 'again.pth')
    targets = ('official', 'mmpretrain-vit', 'mmpretrain', 'cae_mm')
    for i, target in enumerate(targets):
        got = convert(names[i], names[i + 1], '--to', target)
    printed = capsys.readouterr().out
    for line in ('mmpretrain, classifier: 2 blocks', "final_norm=False, out_type='avg_featmap'",
                 'safetensors.torch.load_file', "prefix='backbone.'"):
        assert line in printed
    assert got['state_dict'].keys() == ours.keys()
    assert all(torch.equal(got['state_dict'][name], value) for name, value in ours.items())


def test_each_library_loads_its_file(convert, ours, tmp_path):
    convert('ours.pth', 'timm.pth', '--to', 'timm')
    options = dict(embed_dim=24, depth=2, num_heads=4, init_values=1., **SIZES)
    model = timm.create_model('vit_base_patch16_224', num_classes=5, global_pool='avg',
                              checkpoint_path=tmp_path / 'timm.pth', **options)
    assert torch.equal(model.head.bias, ours['head.fc.bias'])
    convert('ours.pth', 'encoder.safetensors', '--to', 'timm', '--export', 'encoder')
    timm.create_model('vit_base_patch16_224', num_classes=0, **options,
                      checkpoint_path=tmp_path / 'encoder.safetensors')

    content = convert('ours.pth', 'beit.pth', '--to', 'mmpretrain', '--export', 'encoder')
    assert content.keys() == {'state_dict', 'meta'} and 'backbone.ln1.weight' in content['state_dict']
    assert content['meta'] == dict(dataset_meta=dict(classes=('a', 'b')), cae_mm=dict(patch_size=8))
    model = MODELS.build(dict(
        type='mmpretrain.BEiTViT', use_abs_pos_emb=True, use_rel_pos_bias=False, final_norm=True,
        out_type='cls_token', arch=dict(ARCH, feedforward_channels=96), **SIZES,
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'beit.pth'), prefix='backbone.')))
    model.init_weights()
    assert torch.equal(model.ln1.weight, ours['backbone.norm.weight'])
    assert torch.equal(model.pos_embed, ours['backbone.pos_embed'])

    content = convert('ours.pth', 'official.pth', '--to', 'official', '--export', 'encoder')
    assert all(name.startswith('encoder.') for name in content['model'])


def test_another_image_size(convert, ours):
    table = convert('ours.pth', 'out.pth', '--img-size', '48', '64')['state_dict']['backbone.pos_embed']
    assert torch.equal(table, sincos_positions(24, 6, 8))
    resized = convert('ours.pth', 'out.pth', '--img-size', '64', '--positions', 'resize')
    resized, exact = resized['state_dict']['backbone.pos_embed'], sincos_positions(24, 8, 8)
    assert resized.shape == exact.shape and not torch.allclose(resized, exact, atol=0.01)


@pytest.mark.parametrize('arguments, message', [
    (['nothing.pth', 'out.pth'], 'there is no checkpoint at'),
    (['ours.pth', 'out.pth', '--from', 'timm'], 'not timm'),
    (['ours.pth', 'ours.pth'], 'is the checkpoint itself'),
    (['ours.pth', 'out.bin'], 'name a .pth or .pt or .safetensors file'),
    (['ours.pth', 'out.pth', '--img-size', '30'], 'no whole number of patches'),
    (['ours.pth', 'out.pth', '--img-size', '8', '8', '8'], '--img-size takes a height and a width'),
    (['ours.pth', 'out.pth', '--positions', 'resize'], '--positions says how'),
    (['half.pth', 'out.pth'], 'missing 14: backbone.blocks.0'),
])
def test_errors_leave_no_file(call_tool, ours, tmp_path, arguments, message):
    torch.save({k: v for k, v in ours.items() if '.blocks.0.' not in k or 'norm1.weight' in k},
               tmp_path / 'half.pth')
    before = (tmp_path / 'ours.pth').read_bytes()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        call_tool('convert.py', *(tmp_path / a if '.' in a else a for a in arguments))
    assert not any(tmp_path.glob('out.*')) and (tmp_path / 'ours.pth').read_bytes() == before
