"""Our tokenizers as mmpretrain's BEiT and CAE call theirs."""
import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor

from cae_mm.models.targets.dalle import map_pixels


@MODELS.register_module()
class TokenizerLogits(BaseModule):
    """A frozen tokenizer in the place of mmpretrain's 'DALL-E': logits, whose likeliest codes are targets.

    Args:
        tokenizer (dict): a ``DiscreteVAE`` or ``DALLETokenizer``.
        init_cfg (dict, optional): its checkpoint, see :class:`TargetGenerator`, as well for what is raised.
    """

    def __init__(self, tokenizer: dict, init_cfg: dict | None = None):
        super().__init__()
        self.tokenizer = MODELS.build(dict(tokenizer, init_cfg=init_cfg))
        self.tokenizer.freeze()

    @torch.no_grad()
    def forward(self, target_images: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] -> (B, K, h / stride, w / stride) float32."""
        self.tokenizer.grid_size(*target_images.shape[2:])
        device = target_images.device.type
        with torch.autocast(device, self.tokenizer.dtype, enabled=device == 'cuda'):
            return self.tokenizer.encoder(map_pixels(target_images))
