"""Normalised pixels as targets: no tokenizer needed."""
import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from cae_mm.models.layers import gather_tokens, patchify
from cae_mm.models.targets.base import TargetGenerator


@MODELS.register_module()
class PixelTarget(TargetGenerator):
    """Pixels of each patch, shifted and scaled to mean 0 and variance 1 (MAE, arXiv 2111.06377).

    Args:
        patch_size (int): side of a patch of the target image, in pixels.
        init_cfg (dict, optional): refused, there are no weights.
    """

    def __init__(self, patch_size=16, init_cfg=None):
        super().__init__(init_cfg)
        self.stride, self.num_outputs = patch_size, 3 * patch_size ** 2

    @staticmethod
    def statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each patch, (B, N, 1) both."""
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return mean, (variance + 1e-6).sqrt()

    @torch.no_grad()
    def get_targets(self, target_images: Tensor, masked: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] and (B, M) int64 -> (B, M, 3 * p * p) float32."""
        patches = gather_tokens(patchify(target_images, self.stride), masked)
        mean, std = self.statistics(patches)
        return (patches - mean) / std

    @torch.no_grad()
    def reconstruct(self, predictions: Tensor, target_images: Tensor) -> Tensor:
        """Picture (B, 3, h, w) in [0, 1] of (B, N, 3 * p * p) values, with true means and deviations."""
        mean, std = self.statistics(patchify(target_images, self.stride))
        grid = self.grid_size(*target_images.shape[-2:])
        patches = (predictions * std + mean).unflatten(2, (3, self.stride, self.stride)).unflatten(1, grid)
        return patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3).clamp(0, 1)
