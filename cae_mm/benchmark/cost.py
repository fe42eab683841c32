"""What a model costs, counted without its numbers: parameters, operations, and hours before a run."""
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# Of one device with these models, in 1e12 operations per second: assumed, not measured.
RATES = dict(gpu=100., cpu=0.1)
PROPOSALS, POSITIVES = 512, 128  # of an image, in the second stage of a detector


def operations(function, *shapes: tuple[int, ...]) -> int:
    """Floating-point operations of a call with tensors of these shapes, a multiply-add being two."""
    with torch.device('meta'), torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*(torch.empty(shape) for shape in shapes))
    return counter.get_total_flops()


def on_meta(settings: dict, scope: str = 'mmpretrain') -> nn.Module:
    """A model without memory for its numbers."""
    init_default_scope(scope)
    with torch.device('meta'):
        return MODELS.build({key: value for key, value in settings.items() if key != 'init_cfg'}).eval()


def cost_of_encoder(settings: dict, size: tuple[int, int]) -> dict[str, float]:
    """Millions of parameters, and 1e9 operations for an image of (height, width) pixels."""
    backbone = on_meta(settings)
    return dict(parameters=sum(each.numel() for each in backbone.parameters()) / 1e6,
                gflops=operations(backbone, (1, 3, *size)) / 1e9)


def training_operations(cfg: Config, size: tuple[int, int], images: int) -> float:
    """Operations of a training on ``images`` views: the backward pass counts as two forward passes."""
    scope = cfg.get('default_scope', 'mmpretrain')
    model, image = on_meta(cfg.model, scope), (1, 3, *size)
    encoder = operations(model.backbone, image)
    if scope == 'mmdet':
        whole = operations(lambda x: model.rpn_head(model.extract_feat(x)), image)
        heads, channels = model.roi_head, cfg.model.roi_head.mask_roi_extractor.out_channels
        for head, number, side in (heads.bbox_head, PROPOSALS, 7), (heads.mask_head, POSITIVES, 14):
            for stage in head if isinstance(head, nn.ModuleList) else [head]:
                whole += operations(stage, (number, channels, side, side))
    elif scope == 'mmseg':
        whole = operations(model, image)
        if model.with_auxiliary_head:
            whole += operations(lambda x: model.auxiliary_head(model.extract_feat(x)), image)
            whole -= operations(model.extract_feat, image)
    else:
        whole = encoder
    backbone = cfg.model.backbone
    passes = 1 if backbone.get('frozen_stages', -1) > 0 else 4 if backbone.get('with_cp') else 3
    return images * (passes * encoder + 3 * (whole - encoder))
