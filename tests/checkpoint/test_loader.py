"""The encoder is loaded from checkpoints of every origin, whole or not at all."""
import pytest
import timm
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from cae_mm.checkpoint.convert import convert
from cae_mm.checkpoint.files import write_checkpoint
from cae_mm.checkpoint.layouts import FILE_KEYS
from cae_mm.checkpoint.loader import StrictLoadHook, load_backbone
from cae_mm.models import CAEViT
from cae_mm.positions import resize_window, resized, sincos_positions

from .conftest import DIMS, HEADS, PATCH, SIZE


def vit(**kwargs):
    return CAEViT(**dict(dict(arch=dict(embed_dims=DIMS, num_layers=2, num_heads=HEADS), img_size=SIZE,
                              patch_size=PATCH), **kwargs))


@pytest.fixture
def save(tmp_path, state):
    """A function that saves a model of ours, or given arrays, and returns the path."""

    def save(kind='encoder', target='cae_mm', suffix='.pth', **changes):
        arrays = convert(state(kind, **changes), target=target) if isinstance(kind, str) else kind
        write_checkpoint(arrays, tmp_path / f'model{suffix}', FILE_KEYS[target])
        return tmp_path / f'model{suffix}'

    return save


def loaded(path, state, kind='encoder', **kwargs):
    """Load into a new encoder, which must then be that of the model of this kind."""
    model = vit(**kwargs)
    load_backbone(model, path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[f'backbone.{name}']), name
    return model


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('kind, target', [
    ('encoder', 'cae_mm'), ('pre-training', 'cae_mm'), ('classifier', 'cae_mm'),
    ('attentive probe', 'cae_mm'), ('pre-training', 'official'), ('encoder', 'official'),
    ('classifier', 'official'), ('linear probe', 'official'), ('attentive probe', 'official'),
    ('classifier', 'timm'), ('encoder', 'timm'), ('pre-training', 'mmpretrain'),
    ('linear probe', 'mmpretrain'), ('classifier', 'mmpretrain-vit')])
def test_every_origin_is_loaded(save, state, kind, target, suffix):
    loaded(save(kind, target, suffix), state(kind))


@pytest.mark.parametrize('name', ['Pretrained', 'PretrainedEncoder'])
def test_init_cfg_loads_the_whole_encoder(save, state, name):
    model = vit(init_cfg=dict(type=name, checkpoint=str(save()), prefix='backbone.'))
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state('encoder')[f'backbone.{name}']), name


def test_a_prefix_chooses_among_several_encoders(tmp_path, state):
    student = {f'student.{k}': v for k, v in state('encoder').items()}
    teacher = {f'teacher_net.{k}': v + 1 for k, v in state('encoder').items()}
    torch.save(student | teacher, tmp_path / 'two.pth')
    model = vit()
    load_backbone(model, tmp_path / 'two.pth', prefix='student.backbone.')
    assert torch.equal(model.cls_token, state('encoder')['backbone.cls_token'])
    with pytest.raises(ValueError, match='two.pth: a checkpoint of no known origin'):
        load_backbone(model, tmp_path / 'two.pth')


def test_models_of_timm_and_of_the_authors_of_mae(tmp_path):
    theirs = timm.create_model('vit_base_patch16_224', img_size=SIZE, patch_size=PATCH, embed_dim=DIMS,
                               depth=2, num_heads=HEADS).eval()
    mae = theirs.state_dict() | {'decoder_pred.bias': torch.ones(1), 'mask_token': torch.ones(1)}
    torch.save(dict(model=mae), tmp_path / 'mae.pth')
    model = vit().eval()
    load_backbone(model, tmp_path / 'mae.pth')
    images = torch.randn(1, 3, SIZE, SIZE)
    want = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
    torch.testing.assert_close(model(images)[0], want, atol=1e-5, rtol=0)


def test_positions_of_another_grid_are_recomputed(save, state):
    model = vit(img_size=(48, 64))
    load_backbone(model, save())
    assert torch.equal(model.cls_token, state('encoder')['backbone.cls_token'])
    assert torch.equal(model.pos_embed, sincos_positions(DIMS, 6, 8))


def test_position_tables_that_do_not_tell_are_kept_or_refused(save, state):
    arrays = state('encoder')
    arrays['backbone.pos_embed'] = torch.randn(1, 17, DIMS)
    path = save(arrays)
    loaded(path, arrays)
    with pytest.raises(RuntimeError, match=r'\(1, 17, 24\) is not the sine-cosine one.*6x8.*--img-size'):
        load_backbone(vit(img_size=(48, 64)), path)


def test_positions_of_another_grid_are_resized_when_asked_for(save, state):
    arrays = state('encoder')
    for table in (arrays['backbone.pos_embed'], torch.randn(1, 17, DIMS)):
        model = vit(img_size=(48, 64), pos_mode='resize')
        load_backbone(model, save(arrays | {'backbone.pos_embed': table}))
        assert torch.equal(model.pos_embed, resized(table, (4, 4), (6, 8)))
        model(torch.randn(1, 3, 40, 40))


def test_a_grid_of_as_many_patches_is_told_apart(save, state):
    path = save(img_size=(64, 16))
    loaded(path, state('encoder', img_size=(64, 16)), img_size=(64, 16))
    for size in (SIZE, (16, 64)):
        with pytest.raises(RuntimeError, match='for 8x2 patches, and the model has'):
            load_backbone(vit(img_size=size), path)
    # The official code lays the table of 2 x 8 patches out like ours of 8 x 2.
    loaded(save(img_size=(64, 16), target='official'), state('encoder', img_size=(64, 16)),
           img_size=(16, 64))


@pytest.mark.parametrize('kwargs, message', [
    (dict(arch=dict(embed_dims=32, num_layers=2, num_heads=2)), 'embed_dims=24 in the file, 32 in the'),
    (dict(arch=dict(embed_dims=24, num_layers=3, num_heads=2)), 'num_layers=2 in the file, 3 in the'),
    (dict(arch=dict(embed_dims=24, num_layers=1, num_heads=2)), 'num_layers=2 in the file, 1 in the'),
    (dict(patch_size=16), 'patch_size=8 in the file, 16 in the model.*Build CAEViT with .*patch_size=8'),
    (dict(in_channels=4), 'in_channels=3 in the file, 4 in the model'),
    (dict(mlp_ratio=2.), r'mlp.fc1.bias: \(96,\) in the file, \(48,\) in the model'),
    (dict(with_cls_token=False, out_type='raw'), 'unexpected: cls_token'),
])
def test_another_architecture_is_refused(save, kwargs, message):
    model = vit(**kwargs)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError, match=message):
        load_backbone(model, save())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_final_norm(save, state):
    without = {k: v for k, v in state('encoder').items() if not k.startswith('backbone.norm.')}
    path = save(without)
    with pytest.raises(ValueError, match=r'model.pth: .*no final norm.*CAEViT\(final_norm=False\)'):
        load_backbone(vit(), path)
    loaded(path, without, final_norm=False)
    loaded(save(), without, final_norm=False)


def test_relative_position_tables(save, state):
    relative = dict(use_rel_pos_bias=True)
    loaded(save('relative'), state('relative'), **relative)
    loaded(save('relative', 'official'), state('relative'), **relative)
    with pytest.raises(RuntimeError, match='for 4x4 patches: build CAEViT with use_rel_pos_bias=True'):
        load_backbone(vit(), save('relative'))
    with pytest.raises(RuntimeError, match='4x4 patches, the model has 8x8 patches: build .* img_size'):
        load_backbone(vit(img_size=64, **relative), save('relative'))
    with pytest.raises(RuntimeError, match='num_heads=4 in the file, 2 in the model'):
        load_backbone(vit(arch=dict(embed_dims=DIMS, num_layers=2, num_heads=2), **relative),
                      save('relative'))
    some = state('relative')
    del some['backbone.blocks.1.attn.rel_pos.relative_position_bias_table']
    with pytest.raises(RuntimeError, match='1 missing: blocks.1.attn.rel_pos'):
        load_backbone(vit(**relative), save(some))


@pytest.mark.parametrize('size', [64, (24, 48), (16, 48)])
def test_relative_position_tables_are_resized_when_asked_for(save, state, size):
    path, arrays = save('relative'), state('relative')
    options = dict(img_size=size, use_rel_pos_bias=True)
    init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.', resize_rel_pos=True)
    model = vit(**options, init_cfg=init_cfg)
    model.init_weights()
    for i, block in enumerate(model.blocks):
        table = arrays[f'backbone.blocks.{i}.attn.rel_pos.relative_position_bias_table']
        assert torch.equal(block.attn.rel_pos.relative_position_bias_table,
                           resize_window(table, (4, 4), model.grid_size))
    with pytest.raises(RuntimeError, match='4x4 patches, the model has .*resize_rel_pos=True in init_cfg'):
        load_backbone(vit(**options), path)


def test_relative_position_tables_that_are_not_there_start_at_zero(save, state, make):
    model = vit(use_rel_pos_bias=True)
    for block in model.blocks:
        nn.init.ones_(block.attn.rel_pos.relative_position_bias_table)
    load_backbone(model, save())
    assert not any(block.attn.rel_pos.relative_position_bias_table.any() for block in model.blocks)
    images = torch.randn(1, 3, SIZE, SIZE)
    torch.testing.assert_close(model.eval()(images), make('encoder')(images))
    # And zeros may be left out: they change nothing.
    zeros = {k: v * 0 if 'table' in k else v for k, v in state('relative').items()}
    loaded(save(zeros), zeros)


class Runner:
    """As much of a runner as the hook looks at, training or not."""

    _load_from = None

    def __init__(self, training=True, resume=False, **model):
        self.model = nn.ModuleDict(model)
        self.cfg = dict(resume=resume)
        self.optim_wrapper = (OptimWrapper(torch.optim.SGD(self.model.parameters(), lr=1.)) if training
                              else dict(type='OptimWrapper'))


def test_the_runner_hook_refuses_before_loading(save):
    runner, checkpoint = Runner(backbone=vit()), torch.load(save())
    StrictLoadHook().after_load_checkpoint(runner, checkpoint)
    del checkpoint['state_dict']['backbone.norm.bias']
    with pytest.raises(RuntimeError, match='1 missing: backbone.norm.bias'):
        StrictLoadHook().after_load_checkpoint(runner, checkpoint)


def heads(classes):
    return dict(trunk=nn.Linear(2, 2), head=nn.ModuleDict(dict(
        fc=nn.Linear(2, classes), fc_reg=nn.Linear(2, 4))))


def test_named_parts_may_be_new_when_training_starts():
    def checkpoint(classes=80):
        return dict(state_dict=nn.ModuleDict(heads(classes)).state_dict())

    hook = StrictLoadHook(new_parts=['head.fc'])
    for classes in (80, 3):  # as many classes are other ones all the same
        given = checkpoint()
        hook.after_load_checkpoint(Runner(**heads(classes)), given)
        assert given['state_dict'].keys() == {
            'trunk.weight', 'trunk.bias', 'head.fc_reg.weight', 'head.fc_reg.bias'}
    for wrong in (Runner(**heads(3), resume=True), Runner(**heads(3), training=False)):
        with pytest.raises(RuntimeError, match=r'head.fc.bias: \(80,\) in the file, \(3,\) in the model'):
            hook.after_load_checkpoint(wrong, checkpoint())
    for same in (Runner(**heads(3), resume=True), Runner(**heads(3), training=False)):
        hook.after_load_checkpoint(same, given := checkpoint(3))
        assert 'head.fc.bias' in given['state_dict']
    with pytest.raises(RuntimeError, match='head.fc.bias: .*head.fc.weight: .*to start from it with some '
                                           'parts new'):
        StrictLoadHook(new_parts=['head.fc_reg']).after_load_checkpoint(Runner(**heads(3)), checkpoint())
    with pytest.raises(ValueError, match='the model has no head.fc_cls; do you mean head.fc'):
        StrictLoadHook(new_parts=['head.fc_cls']).after_load_checkpoint(Runner(**heads(3)), checkpoint())
