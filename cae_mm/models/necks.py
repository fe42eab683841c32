"""Four scales out of a plain vision transformer, for detection and segmentation."""
from mmengine.model import BaseModule
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ViTFeaturePyramid(BaseModule):
    """Bring the outputs of four blocks, all of one stride s, to the strides s/4, s/2, s and 2s.

    As in the official detection and segmentation backbones, where these layers are called fpn1 to
    fpn4. For detection mmdet's FPN follows: ``neck=[dict(type='mmpretrain.ViTFeaturePyramid', ...),
    dict(type='FPN', ...)]``.

    Args:
        in_channels (int): channels C of all maps, coming in and going out.
        norm_cfg (dict, optional): norm between the two steps of the finest scale: SyncBN by default,
            which several processes on CPUs must replace, by ``dict(type='BN')``; or 'GN', 'LN2d'.
        init_cfg (dict, optional): initialisation; PyTorch's own by default, as in the official code.
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
        """Four (B, C, h, w) -> (B, C, 4h, 4w), (B, C, 2h, 2w), (B, C, h, w), (B, C, h // 2, w // 2).

        Raises:
            ValueError: when there are not four maps.
        """
        if len(inputs) != 4 or inputs[0].dim() != 4:
            raise ValueError(f'{len(inputs)} inputs of shape {tuple(inputs[0].shape)}: '
                             "ViTFeaturePyramid needs four feature maps, the backbone's "
                             "out_type='featmap' and four out_indices")
        first, second, third, fourth = inputs
        return self.upsample4(first), self.upsample2(second), third, self.downsample2(fourth)
