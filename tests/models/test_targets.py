"""What all target generators share: frozen, with weights or not at all, codes or values of any width."""
import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

from cae_mm.models import DALLETokenizer, DiscreteVAE, PixelTarget, TargetGenerator
from cae_mm.models.targets import TokenizerLogits

SIZES = dict(num_codes=24, hidden_dims=8, num_groups=2, blocks_per_group=1)


@MODELS.register_module()
class Features(TargetGenerator):
    """A teacher of five features for each 8 x 8 pixels."""
    num_outputs, stride, advice = 5, 8, 'Train one.'

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layer = nn.Sequential(nn.Conv2d(3, 5, 8, 8), nn.Dropout())
        self.loaded = self.load(self.layer, self.init_cfg)

    @torch.no_grad()
    def get_targets(self, target_images, masked):
        found = self.layer(target_images).flatten(2).transpose(1, 2)
        return found.gather(1, masked[..., None].expand(-1, -1, 5))


def cae(target, num_outputs, patch_size=8):
    sizes = dict(grid_size=4, embed_dims=16, num_heads=2, depth=1)
    return MODELS.build(dict(
        type='ContextAutoencoder', target_generator=target,
        backbone=dict(type='CAEViT', img_size=32, patch_size=patch_size,
                      arch=dict(embed_dims=16, num_layers=1, num_heads=2)),
        neck=dict(type='LatentContextualRegressor', **sizes),
        head=dict(type='CAEDecoder', num_outputs=num_outputs, **sizes)))


def test_features_of_another_width_are_targets():
    """What pre-training with a teacher needs, such as CAE v2."""
    model = cae(dict(type='Features', allow_random=True), 5).train()
    assert model.target_generator.layer[1].training is False  # a teacher drops nothing
    images, mask = torch.rand(2, 3, 32, 32), torch.arange(16).expand(2, -1) < 8
    out = model.forward_masked(images, mask, images)
    assert out.ids.shape == out.logits.shape == (2, 8, 5) and out.loss_reconstruct.requires_grad
    torch.testing.assert_close(out.loss_reconstruct, (out.logits - out.ids).square().mean())
    assert not any(parameter.requires_grad for parameter in model.target_generator.parameters())
    pixels = cae(dict(type='PixelTarget', patch_size=8), 192)
    heads = 3 * 2 * 8 * 16 * (192 - 5)  # the last layer, forward and backward
    teacher = 2 * 16 * 192 * 5  # 16 patches, forward
    assert pixels.flops_per_image() - model.flops_per_image() == heads - teacher
    with pytest.raises(ValueError, match='no picture of the targets of Features'):
        model.target_generator.reconstruct(out.logits, images)


@pytest.mark.parametrize('kind', [DALLETokenizer, DiscreteVAE])
def test_one_way_to_name_a_checkpoint(kind, tmp_path):
    source = kind(allow_random=True, **SIZES)
    part = source if kind is DiscreteVAE else source.encoder
    torch.save(part.state_dict(), tmp_path / 'tokenizer.pth')
    for spelling in ('Pretrained', 'PretrainedTokenizer'):
        init_cfg = dict(type=spelling, checkpoint=str(tmp_path / 'tokenizer.pth'))
        tokenizer = kind(init_cfg=init_cfg, **SIZES)
        tokenizer.init_weights()  # as the runner does
        tokenizer.freeze()
        assert all(torch.equal(value, tokenizer.state_dict()[name])
                   for name, value in source.state_dict().items())
        assert not tokenizer.train().encoder.training
        with pytest.raises(ValueError, match='sha256'):
            kind(init_cfg=dict(init_cfg, sha256='0' * 64), **SIZES)


@pytest.mark.parametrize('kind', [DALLETokenizer, DiscreteVAE])
@pytest.mark.parametrize('init_cfg', [
    None, dict(type='Pretrained'), dict(type='Pretrained', checkpoint='nowhere/encoder.pkl')])
def test_a_tokenizer_without_weights_says_where_to_get_them(kind, init_cfg):
    with pytest.raises(FileNotFoundError) as error:
        kind(init_cfg=init_cfg, **SIZES).freeze()
    hints = ['configs/tokenizer/dvae_imagenet.py', 'tokenizer=PATH', (init_cfg or {}).get('checkpoint', '')]
    if kind is DALLETokenizer:
        hints += ['openaipublic.com', 'onedl.ai']
    assert all(hint in str(error.value) for hint in hints)
    with pytest.raises(FileNotFoundError, match='configs/tokenizer'):
        cae(dict(type=kind.__name__, init_cfg=init_cfg, **SIZES), 24)


def test_pixels_take_no_checkpoint():
    init_cfg = dict(type='Pretrained', checkpoint='a.pth')
    with pytest.raises(ValueError, match='PixelTarget has no weights.*a.pth.*tokenizer=PATH'):
        cae(dict(type='PixelTarget', patch_size=8, init_cfg=init_cfg), 192)


def test_pixel_targets_are_normalised_patches_and_come_back():
    target = PixelTarget(8)
    images = torch.rand(2, 3, 32, 24)
    pixels = target.get_targets(images, torch.arange(12).expand(2, -1))
    assert pixels.mean(-1).abs().max() < 1e-5 and (pixels.std(-1) - 1).abs().max() < 1e-2
    torch.testing.assert_close(target.reconstruct(pixels, images), images, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match='8 x 8 pixels, and 20 x 24'):
        target.grid_size(20, 24)


TEACHER = dict(type='TeacherFeatures', allow_random=True)
TINY = dict(embed_dim=32, depth=1, num_heads=2, img_size=32, patch_size=8)


def v2(teacher, num_outputs=32):
    sizes = dict(grid_size=4, embed_dims=16)
    return MODELS.build(dict(
        type='ContextAutoencoder', target_generator=teacher, align_weight=0.,
        backbone=dict(type='CAEViT', img_size=32, patch_size=8,
                      arch=dict(embed_dims=32, num_layers=1, num_heads=2)),
        neck=dict(type='LatentContextualRegressor', in_dims=32, num_heads=2, depth=1, final_norm=False,
                  **sizes),
        head=dict(type='TokenDecoder', num_outputs=num_outputs, **sizes)))


@pytest.mark.parametrize('name', [
    'vit_base_patch16_clip_quickgelu_224', 'vit_small_patch14_reg4_dinov2', 'vit_small_patch16_dinov3',
    'vit_base_patch16_siglip_224', 'vit_base_patch16_224.mae'])
def test_teachers(name):
    """Class and patch tokens in their places, registers nowhere, pixels as the teacher knows them."""
    torch.manual_seed(0)
    model = v2(dict(TEACHER, backbone=dict(type='TimmViT', name=name, **TINY)))
    teacher, vit = model.target_generator, model.target_generator.backbone
    images = torch.rand(2, 3, 32, 32)
    tokens = vit((images - teacher.mean) / teacher.std)[-1]
    torch.testing.assert_close(teacher.mean.flatten().tolist(), list(vit.mean))
    patches = tokens[:, vit.num_prefix_tokens:]
    assert patches.shape[1] == 16
    first = patches.mean(1) if 'siglip' in name else tokens[:, 0]
    found = teacher.get_targets(images, torch.tensor([[-1, 3, 15], [0, -1, 2]]))
    torch.testing.assert_close(found[0], torch.stack([first[0], patches[0, 3], patches[0, 15]]))
    torch.testing.assert_close(found[1], torch.stack([patches[1, 0], first[1], patches[1, 2]]))
    mask = torch.arange(16).expand(2, -1) < 5
    out = model.train().forward_masked(images, mask, images)
    assert out.logits.shape == out.ids.shape == (2, 17, 32) and model.flops_per_image() > 0
    model.zero_grad()
    out.loss_reconstruct.backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    assert not any(name.startswith('target_generator') for name in model.state_dict())


def test_a_teacher_of_ours(tmp_path):
    encoder = dict(type='CAEViT', img_size=32, patch_size=8,
                   arch=dict(embed_dims=32, num_layers=1, num_heads=2))
    student = v2(dict(TEACHER, backbone=encoder))
    torch.save(dict(state_dict=student.state_dict()), tmp_path / 'cae.pth')
    given = dict(type='TeacherFeatures', backbone=encoder,
                 init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'cae.pth')))
    teacher = v2(given).target_generator
    assert all(torch.equal(teacher.backbone.state_dict()[key], value)
               for key, value in student.backbone.state_dict().items())
    with pytest.raises(RuntimeError, match='has no projection'):
        v2(dict(given, projection=8), 8)
    with pytest.raises(FileNotFoundError, match='TeacherFeatures as target generator has random weights'):
        v2(dict(type='TeacherFeatures', backbone=encoder))
    with pytest.raises(ValueError, match='TokenDecoder predicts the class token'):
        v2(dict(type='PixelTarget', patch_size=8), 192)
    masked = cae(dict(given), 32).train()  # through CAE's own decoder, of masked patches alone
    out = masked.forward_masked(torch.rand(1, 3, 32, 32), torch.arange(16)[None] < 8)
    assert out.ids.shape == (1, 8, 32)


@pytest.mark.parametrize('kind', [DALLETokenizer, DiscreteVAE])
def test_logits_for_the_classes_of_mmpretrain(kind):
    """Their likeliest codes are the targets; random weights are refused, and none is trained."""
    with pytest.raises(FileNotFoundError, match='random weights'):
        TokenizerLogits(dict(type=f'mmpretrain.{kind.__name__}', **SIZES))
    module = TokenizerLogits(dict(type=f'mmpretrain.{kind.__name__}', allow_random=True, **SIZES)).train()
    images, masked = torch.rand(2, 3, 32, 32), torch.tensor([[0, 3, 5], [1, 2, 15]])
    grid = module.tokenizer.grid_size(32, 32)
    logits = module(images)
    assert logits.shape == (2, module.tokenizer.num_outputs, *grid)
    codes = logits.argmax(1).flatten(1).gather(1, masked)
    assert torch.equal(codes, module.tokenizer.get_targets(images, masked))
    assert not any(p.requires_grad for p in module.parameters()) and not module.tokenizer.training
