"""What arrays do not tell: heads by origin and size, and what checkpoints of ours say of themselves."""
import pytest
import safetensors
import timm
import torch
from mmengine.model import ImgDataPreprocessor
from mmpretrain.models import BEiTViT, ClsDataPreprocessor, VisionTransformer

import cae_mm
from cae_mm.checkpoint.convert import convert_file
from cae_mm.checkpoint.facts import facts_of
from cae_mm.checkpoint.files import read_checkpoint
from cae_mm.checkpoint.loader import StrictLoadHook, load_backbone
from cae_mm.models import CAEDataPreprocessor, CAEViT

from .conftest import DIMS, HEADS, KINDS, PATCH, SIZE

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


def from_timm(name, **sizes):
    """A model of timm, 2 blocks deep, and its sizes."""
    model = timm.create_model(name, depth=2, img_size=64, patch_size=16, num_classes=0, **sizes)
    return model, dict(embed_dims=model.embed_dim, num_layers=2, num_heads=model.blocks[0].attn.num_heads)


def official(embed_dim, num_heads):
    """BEiT's model, which has the names of the authors' code, in their sizes."""
    return from_timm('beit_base_patch16_224', embed_dim=embed_dim, num_heads=num_heads, init_values=1.,
                     use_abs_pos_emb=True, use_rel_pos_bias=False, global_pool='token')


def from_mmpretrain(kind, name, depth=2, **options):
    arch = dict(kind.arch_zoo[name], num_layers=depth)
    model = kind(arch, 64, final_norm=True, out_type='cls_token', **options)
    model.forward_features = lambda images: model.forward(images)[0].unsqueeze(1)
    return model, arch


def beit(*arch):
    return from_mmpretrain(BEiTViT, *arch, use_abs_pos_emb=True, use_rel_pos_bias=False)


def vit(*arch):
    return from_mmpretrain(VisionTransformer, *arch)


@pytest.mark.parametrize('origin, size', [
    *[(from_timm, (f'vit_{size}_patch16_224',)) for size in ('tiny', 'small', 'base', 'large')],
    (from_timm, ('vit_huge_patch14_224',)),
    *[(official, size) for size in ((192, 12), (384, 12), (768, 12), (1024, 16))],
    *[(origin, size) for origin in (beit, vit) for size in (
        ('deit-tiny',), ('deit-small',), ('small', 8), ('base',), ('large',))],
    (vit, ('huge',)),
], ids=lambda value: getattr(value, '__name__', value))
def test_every_origin_and_size_gives_its_features_or_is_refused(tmp_path, origin, size):
    torch.manual_seed(0)
    theirs, arch = origin(*size)
    for name, value in theirs.state_dict().items():
        value.add_(torch.randn(value.shape) / (arch['embed_dims'] ** 0.5 if 'qkv' in name else 50))
    torch.save(theirs.state_dict(), tmp_path / 'theirs.pth')
    ratio = arch.pop('feedforward_channels', 4 * arch['embed_dims']) / arch['embed_dims']
    model = CAEViT(arch, img_size=64, mlp_ratio=ratio).eval()
    load_backbone(model, tmp_path / 'theirs.pth')
    theirs.train(False)  # mmpretrain's `eval` gives nothing back
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        want = theirs.forward_features(images)[:, 0]
        torch.testing.assert_close(model(images)[0], want, atol=1e-5, rtol=0)
        other = CAEViT(dict(arch, num_heads=2), img_size=64, mlp_ratio=ratio).eval()
        refusal = f'num_heads={arch["num_heads"]} in the file, 2 in the model.*wrong features.*num_heads=2'
        with pytest.raises(RuntimeError, match=refusal):
            load_backbone(other, tmp_path / 'theirs.pth')
        load_backbone(other, tmp_path / 'theirs.pth', trained_with=dict(num_heads=2))
        assert not torch.allclose(other(images)[0], want, atol=1e-3)


def test_the_refusal_names_the_encoder_to_take(tmp_path):
    theirs = timm.create_model('vit_small_patch16_224', num_classes=0)
    torch.save(theirs.state_dict(), tmp_path / 'timm.pth')
    with pytest.raises(RuntimeError, match=r'6 in the file, 12 in .* which is cae_deits.*'
                                           r'trained_with=dict\(num_heads=12\) in init_cfg or get_model'):
        cae_mm.get_model('cae_vits', tmp_path / 'timm.pth')
    assert cae_mm.get_model('cae_deits', tmp_path / 'timm.pth').trained_with == dict(num_heads=6)
    cae_mm.get_model('cae_vits', tmp_path / 'timm.pth', trained_with=dict(num_heads=12))
    with pytest.raises(ValueError, match='trained_with states heads: known are num_heads, patch_size'):
        cae_mm.get_model('cae_vits', tmp_path / 'timm.pth', trained_with=dict(heads=12))


class Runner:
    """As much of a runner as the hook looks at."""

    _load_from = None

    def __init__(self, model):
        self.model, self.optim_wrapper, self.cfg = model, None, {}


@pytest.fixture
def trained(make, tmp_path):
    """A pre-training model of ours, and its checkpoint as a runner saves it."""
    model = make('pre-training', data_preprocessor=dict(type='CAEDataPreprocessor', **IMAGENET))
    checkpoint = dict(state_dict=model.state_dict(), meta={})
    StrictLoadHook().before_save_checkpoint(Runner(model), checkpoint)
    torch.save(checkpoint, tmp_path / 'trained.pth')
    return model, tmp_path / 'trained.pth'


def test_checkpoints_of_ours_state_their_facts(trained, tmp_path):
    model, path = trained
    facts = dict(num_heads=HEADS, patch_size=PATCH, img_size=[SIZE, SIZE], channel_order='RGB', **IMAGENET)
    assert read_checkpoint(path)['meta']['cae_mm'] == facts == facts_of(model)
    names = ('timm.safetensors', 'official.pth', 'beit.safetensors', 'vit.pth', 'ours.safetensors')
    targets = ('timm', 'official', 'mmpretrain', 'mmpretrain-vit', 'cae_mm')
    for name, target in zip(names, targets, strict=True):
        convert_file(path, path := tmp_path / name, target, export='encoder')
        assert read_checkpoint(path)['meta']['cae_mm'] == facts
    with safetensors.safe_open(path, 'pt') as file:
        assert file.metadata().keys() == {'format', 'cae_mm', 'checksums'}
    convert_file(path, tmp_path / 'large.pth', img_size=(64, 48))
    assert read_checkpoint(tmp_path / 'large.pth')['meta']['cae_mm'] == dict(facts, img_size=[64, 48])


def test_converted_files_of_others_state_their_heads(tmp_path):
    theirs, _ = from_timm('vit_tiny_patch16_224')
    torch.save(theirs.state_dict(), tmp_path / 'timm.pth')
    for given, heads in ((None, 3), (12, 12)):
        report = convert_file(tmp_path / 'timm.pth', tmp_path / 'official.pth', 'official', num_heads=given)
        facts = read_checkpoint(tmp_path / 'official.pth')['meta']['cae_mm']
        assert facts == dict(num_heads=heads, patch_size=16)
    report = convert_file(tmp_path / 'official.pth', tmp_path / 'again.safetensors', 'timm')
    assert 'timm.create_model(NAME, num_heads=12, ' in report[-1]


def test_stated_heads_are_checked(trained):
    _, path = trained
    sizes = dict(img_size=SIZE, patch_size=PATCH)
    load_backbone(CAEViT(dict(embed_dims=DIMS, num_layers=2, num_heads=HEADS), **sizes), path)
    other = CAEViT(dict(embed_dims=DIMS, num_layers=2, num_heads=3), **sizes)
    with pytest.raises(RuntimeError, match=f'num_heads={HEADS} in the file, 3 in the model. Build'):
        load_backbone(other, path)


def test_a_stated_image_size_tells_the_grid_of_a_learned_table(state, tmp_path):
    table = torch.randn(1, 17, DIMS)
    path = tmp_path / 'learned.pth'
    torch.save(dict(state_dict=state('encoder') | {'backbone.pos_embed': table},
                    meta=dict(cae_mm=dict(img_size=[8 * PATCH, 2 * PATCH]))), path)
    arch = dict(embed_dims=DIMS, num_layers=2, num_heads=HEADS)
    load_backbone(CAEViT(arch, (8 * PATCH, 2 * PATCH), PATCH), path)
    with pytest.raises(RuntimeError, match='for 8x2 patches, and the model has 4x4 patches'):
        load_backbone(CAEViT(arch, 4 * PATCH, PATCH), path)


@pytest.mark.parametrize('preprocessor, problem', [
    (dict(type='ClsDataPreprocessor', to_rgb=True, **IMAGENET), None),
    (dict(type='ClsDataPreprocessor', **IMAGENET), 'channel_order=RGB in the file, BGR in the model'),
    (dict(type='ClsDataPreprocessor', to_rgb=True, mean=[127.5] * 3, std=[127.5] * 3),
     r'mean=\[123.675, 116.28, 103.53\] in the file, \[127.5, 127.5, 127.5\] in the model; std='),
])
def test_an_encoder_is_trained_on_with_the_pixels_it_knows(trained, make, preprocessor, problem):
    _, path = trained
    for trained_with in ({}, dict(mean=None, std=None, channel_order=None)):
        backbone = dict(KINDS['encoder'], init_cfg=dict(
            type='Pretrained', checkpoint=str(path), prefix='backbone.', trained_with=trained_with))
        model = make('classifier', backbone=backbone, data_preprocessor=preprocessor)
        model.backbone.init_weights()
        if problem is None or trained_with:
            StrictLoadHook().before_train(Runner(model))
        else:
            with pytest.raises(RuntimeError, match=problem):
                StrictLoadHook().before_train(Runner(model))


def test_a_whole_model_is_loaded_with_the_pixels_it_knows(trained, make):
    _, path = trained
    other = make('pre-training', data_preprocessor=dict(type='CAEDataPreprocessor', mean=[0.] * 3))
    with pytest.raises(RuntimeError, match=r'mean=\[123.675.*\] in the file, \[0.0, 0.0, 0.0'):
        StrictLoadHook().after_load_checkpoint(Runner(other), read_checkpoint(path))
    older = read_checkpoint(path) | dict(meta={})
    StrictLoadHook().after_load_checkpoint(Runner(other), older)


def test_the_channel_order_of_preprocessors(make):
    model = make('classifier')
    for pixels, order in (
            (CAEDataPreprocessor(), 'RGB'),
            (ClsDataPreprocessor(**IMAGENET), 'BGR'),
            (ImgDataPreprocessor(**IMAGENET), 'BGR'),
            (ImgDataPreprocessor(**IMAGENET, bgr_to_rgb=True), 'RGB')):
        model.data_preprocessor = pixels
        assert facts_of(model)['channel_order'] == order
    model.data_preprocessor = ClsDataPreprocessor()
    assert facts_of(model).keys() == {'num_heads', 'patch_size', 'img_size'}
