"""Normalised pixels as targets: no tokenizer needed."""
import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from cae_mm.models.layers import gather_tokens


@MODELS.register_module()
class PixelTarget(nn.Module):
    """Pixels of each patch, shifted and scaled to mean 0 and variance 1 (MAE, arXiv 2111.06377).

    Args:
        patch_size (int): side of a patch of the target image, in pixels.
    """

    def __init__(self, patch_size=16):
        super().__init__()
        self.patch_size = patch_size
        self.num_outputs = 3 * patch_size ** 2

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in a target image."""
        return height // self.patch_size, width // self.patch_size

    def patchify(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, N, 3 * p * p)."""
        p = self.patch_size
        patches = images.unflatten(2, (-1, p)).unflatten(4, (-1, p))
        return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    @staticmethod
    def statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each patch, (B, N, 1) both."""
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return mean, (variance + 1e-6).sqrt()

    @torch.no_grad()
    def get_targets(self, target_images: Tensor, masked: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] and (B, M) int64 -> (B, M, 3 * p * p) float32."""
        patches = gather_tokens(self.patchify(target_images), masked)
        mean, std = self.statistics(patches)
        return (patches - mean) / std

    @torch.no_grad()
    def reconstruct(self, predictions: Tensor, target_images: Tensor) -> Tensor:
        """Picture of (B, N, 3 * p * p) predictions, with each patch's true mean and deviation.

        Returns:
            Tensor: (B, 3, h, w) in [0, 1].
        """
        p = self.patch_size
        mean, std = self.statistics(self.patchify(target_images))
        grid = self.grid_size(*target_images.shape[-2:])
        patches = (predictions * std + mean).unflatten(2, (3, p, p)).unflatten(1, grid)
        return patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3).clamp(0, 1)
