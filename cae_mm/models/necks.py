"""Several scales out of a plain vision transformer, for detection and segmentation."""
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ViTFeaturePyramid(BaseModule):
    """Bring the outputs of four blocks, all of one stride s, to the strides s/4, s/2, s and 2s.

    As fpn1 to fpn4 of the official detection and segmentation backbones. For detection mmdet's FPN follows.

    Args:
        in_channels (int): channels C of all maps, coming in and going out.
        norm_cfg (dict, optional): norm between the two steps of the finest scale: SyncBN by default, which
            several processes on CPUs must replace, by ``dict(type='BN')``; or 'GN', 'LN2d'.
        init_cfg (dict, optional): PyTorch's own initialisation by default, as in the official code.
    """

    def __init__(self, in_channels, norm_cfg=None, init_cfg=None):
        super().__init__(init_cfg)

        def twice():
            return nn.ConvTranspose2d(in_channels, in_channels, 2, 2)

        norm = build_norm_layer(norm_cfg or dict(type='SyncBN'), in_channels)
        self.upsample4 = nn.Sequential(twice(), norm, nn.GELU(), twice())
        self.upsample2 = twice()
        self.downsample2 = nn.MaxPool2d(2)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Four (B, C, h, w) -> (B, C, 4h, 4w), (B, C, 2h, 2w), (B, C, h, w), (B, C, h // 2, w // 2)."""
        if len(inputs) != 4 or inputs[0].dim() != 4:
            raise ValueError(f'{len(inputs)} inputs of shape {tuple(inputs[0].shape)}: '
                             "ViTFeaturePyramid needs four feature maps, the backbone's "
                             "out_type='featmap' and four out_indices")
        first, second, third, fourth = inputs
        return self.upsample4(first), self.upsample2(second), third, self.downsample2(fourth)


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Bring the last map alone, of stride s, to the strides s/4, s/2, s, 2s and 4s, each by its own layers.

    ViTDet's (arXiv 2203.16527, section 3): deconvolutions or a pooling, then a 1x1 and a 3x3 convolution;
    the coarsest is the one before at every second place. It replaces a ``ViTFeaturePyramid`` and mmdet's
    FPN.

    Args:
        in_channels, out_channels (int): channels C of the map, and D of all scales.
        norm_cfg (dict, optional): norm behind convolutions; over the channels, 'LN2d', by default.
        init_cfg (dict, optional): PyTorch's own initialisation by default.
    """

    def __init__(self, in_channels, out_channels, norm_cfg=None, init_cfg=None):
        super().__init__(init_cfg)

        def norm(channels):
            return build_norm_layer(norm_cfg or dict(type='LN2d'), channels)

        def twice(channels):
            return nn.ConvTranspose2d(channels, channels // 2, 2, 2)

        half, quarter = in_channels // 2, in_channels // 4
        scales = (
            (quarter, [twice(in_channels), norm(half), nn.GELU(), twice(half)]),
            (half, [twice(in_channels)]),
            (in_channels, []),
            (in_channels, [nn.MaxPool2d(2)]))
        self.scales = nn.ModuleList(
            nn.Sequential(
                *layers,
                nn.Conv2d(channels, out_channels, 1, bias=False), norm(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), norm(out_channels))
            for channels, layers in scales)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One (B, C, h, w) -> (B, D, ...) of 4h x 4w, 2h x 2w, h x w, h // 2 x w // 2 and half of that."""
        if len(inputs) != 1 or inputs[0].dim() != 4:
            raise ValueError(f'{len(inputs)} inputs of shape {tuple(inputs[0].shape)}: '
                             "SimpleFeaturePyramid needs one feature map, the backbone's "
                             "out_type='featmap' and out_indices=-1")
        outputs = [scale(inputs[0]) for scale in self.scales]
        return *outputs, F.max_pool2d(outputs[-1], 1, 2)
