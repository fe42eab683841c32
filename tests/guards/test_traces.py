"""What a step does on a GPU, from its trace: it never waits, and does no more than it did."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.structures import DataSample
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorDeviceMismatchError,
)

from cae_mm.models.cross_entropy import rows_at_once
from tests.guards.trace import pretend

CONFIGS = Path(__file__).parents[2] / 'configs'
BATCH = 64
MASK = torch.arange(196).expand(BATCH, -1) < 98
LOGITS = 8192


def build(path):
    """The full-size model of a config, on the meta device."""
    cfg = Config.fromfile(CONFIGS / f'{path}.py')
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    cfg.model.backbone.update(init_cfg=None, with_cp=False)  # which keeps the state of a real generator
    if cfg.model.get('target_generator', {}).get('type', 'PixelTarget') != 'PixelTarget':
        cfg.model.target_generator.update(init_cfg=None, allow_random=True)
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def pretrain(model, device='cuda'):
    """The losses of a batch."""
    side = 14 * model.target_generator.stride
    images, view = (torch.empty(BATCH, 3, size, size, device=device) for size in (224, side))
    return model.loss(dict(images=images, mask=torch.empty(BATCH, 196), target_images=view))


@pytest.mark.parametrize('name', ['cae_vitb_300e', 'cae_vitb_300e_dvae', 'cae_vitb_300e_pixels',
                                  'cae_vitl_1600e', 'cae_v2_vitb_300e'])
def test_pre_training_never_waits(name):
    model = build(f'pretrain/{name}')
    with pretend(model, 'cuda', MASK):
        losses = pretrain(model)
    assert {loss.device.type for loss in losses.values()} == {'cuda'}
    assert all(loss.dtype == torch.float32 for loss in losses.values())


def test_fine_tuning_never_waits():
    model = build('cls/finetune_cae_vitb_100e')
    with pretend(model, 'cuda'):
        # As mixup and cutmix leave them.
        samples = [DataSample().set_gt_score(torch.empty(1000, device='cuda')) for _ in range(4)]
        loss = model.loss(torch.empty(4, 3, 224, 224, device='cuda'), samples)['loss']
    assert loss.device.type == 'cuda'


@pytest.mark.parametrize('name, size', [('det/mask_rcnn_cae_vitb_1x_coco', (800, 1088)),
                                        ('seg/upernet_cae_vitb_160k_ade20k', (512, 512))])
def test_backbones_of_dense_tasks_never_wait(name, size):
    """What mmdet and mmseg do behind the feature maps is theirs."""
    model = build(name)
    with pretend(model, 'cuda'):
        maps = model.extract_feat(torch.empty(2, 3, *size, device='cuda'))
    assert all(each.device.type == 'cuda' and each.is_contiguous() for each in maps)


def step(model):
    """Trace a whole step but for the optimizer's."""
    with pretend(model, 'cpu', MASK, LOGITS) as trace:
        losses = pretrain(model, 'cpu')
        sum(loss for name, loss in losses.items() if name.startswith('loss')).backward()
    return trace


def test_a_step_of_pre_training_in_numbers():
    """A change of these is wanted or a regression; for another PyTorch they may differ a little."""
    trace = step(build('pretrain/cae_vitb_300e'))
    assert trace.kernels == pytest.approx(1999, rel=0.02)
    assert trace.flops / BATCH == pytest.approx(159.08e9, rel=0.002)
    assert trace.bytes / BATCH == pytest.approx(1.606e9, rel=0.02)
    assert 0 < trace.float32_logits <= rows_at_once(LOGITS) < MASK.sum() / 3


def wait(output):
    return output * output.float().mean().item()


def select(output):
    return output[output.isfinite()].mean() + output


def decide(output):
    return output if output.isfinite().all() else output * 0


def forget(output):
    return output + torch.zeros(output.shape[-1])


def fetch(output):
    return output.cpu().to('cuda', non_blocking=True)


def send(output):
    return output + torch.zeros(output.shape[-1], device='cpu').to('cuda')


@pytest.mark.parametrize('fault, error', [
    (wait, DataDependentOutputException), (decide, DataDependentOutputException),
    (select, DynamicOutputShapeException), (forget, FakeTensorDeviceMismatchError),
    (fetch, RuntimeError), (send, RuntimeError)])
def test_the_guard_sees_what_waits(fault, error):
    model = build('pretrain/cae_vitb_300e_pixels')
    model.neck.register_forward_hook(lambda module, args, output: fault(output))
    with pretend(model, 'cuda', MASK), pytest.raises(error):
        pretrain(model)


def test_the_guard_sees_what_was_left_on_the_cpu():
    model = build('pretrain/cae_vitb_300e_pixels')
    with pretend(model, 'cuda', MASK), pytest.raises(FakeTensorDeviceMismatchError):
        model.head.pos_embed = torch.empty_like(model.head.pos_embed, device='cpu')
        pretrain(model)


def test_the_guard_sees_logits_in_float32(monkeypatch):
    model = build('pretrain/cae_vitb_300e')
    model.head.norm.register_forward_hook(lambda module, args, decoded: model.head.head(decoded).float())
    monkeypatch.setattr(model.head, 'loss', lambda logits, ids: (logits.mean(), None))
    assert step(model).float32_logits == MASK.sum()
