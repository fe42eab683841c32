"""The decoder: from latents of masked patches to what the patches were."""
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from timm.layers import to_2tuple
from torch import Tensor, nn

from cae_mm.models.cross_entropy import linear_cross_entropy
from cae_mm.models.layers import (
    LAYER_NORM_EPS,
    TransformerBlock,
    gather_tokens,
    init_transformer,
    run_block,
)
from cae_mm.positions import sincos_positions


@MODELS.register_module()
class CAEDecoder(BaseModule):
    """Decode masked latents without seeing the visible ones (CAE, section 3.3).

    Args:
        grid_size (int | tuple[int, int]): rows and columns of the patch grid.
        num_outputs (int): K, codes of the tokenizer, or values of a patch for pixel targets.
        embed_dims (int): width D.
        num_heads, depth (int): attention heads and blocks; with none, norm and linear layer read the
            latents.
        mlp_ratio, drop_path_rate, layer_scale_init_value, attn_dims, with_cp: see
            ``LatentContextualRegressor``.
    """
    decodes_cls = False

    def __init__(self, grid_size, num_outputs=8192, embed_dims=768, num_heads=12, depth=4,
                 mlp_ratio=4., drop_path_rate=0., layer_scale_init_value=0.1, attn_dims=None,
                 with_cp=False, init_cfg=None):
        super().__init__(init_cfg)
        self.embed_dims, self.num_outputs, self.with_cp = embed_dims, num_outputs, with_cp
        self.register_buffer('pos_embed', sincos_positions(embed_dims, *to_2tuple(grid_size)))
        self.blocks = nn.ModuleList(
            TransformerBlock(embed_dims, num_heads, mlp_ratio,
                             drop_path_rate * i / max(depth - 1, 1), layer_scale_init_value,
                             attn_dims)
            for i in range(depth))
        self.norm = nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(embed_dims, num_outputs)
        self.apply(init_transformer)

    @staticmethod
    def positions(visible: Tensor, masked: Tensor) -> Tensor:
        """Where the targets of ``forward``'s outputs are: the masked patches."""
        return masked

    def decode(self, predicted: Tensor, masked: Tensor, context: Tensor | None = None) -> Tensor:
        """All but the last layer: (B, M, D) latents at (B, M) int64 patch indices -> (B, M, D).

        ``context``, the latents of class token and visible patches, is what this decoder must not see.
        """
        # Positions tell the blocks' tokens apart.
        x = predicted + gather_tokens(self.pos_embed[:, 1:], masked) if self.blocks else predicted
        for block in self.blocks:
            x = run_block(block, x, with_cp=self.with_cp)
        return self.norm(x)

    def forward(self, predicted: Tensor, masked: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits or pixels (B, M, K) of what ``decode`` takes."""
        return self.head(self.decode(predicted, masked, context))

    def loss(self, decoded: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """The last layer and its loss, in float32.

        Args:
            decoded (Tensor): (B, M, D), from ``decode``.
            target (Tensor): (B, M) int64 codes, for cross entropy; or (B, M, K) pixels, for the mean
                squared error.

        Returns:
            tuple[Tensor, Tensor | None]: the loss, and the share of codes that are right; None for pixels.
        """
        if target.is_floating_point():
            return F.mse_loss(self.head(decoded).float(), target.float()), None
        return linear_cross_entropy(
            decoded.flatten(0, 1), self.head.weight, self.head.bias, target.flatten())


@MODELS.register_module()
class TokenDecoder(CAEDecoder):
    """A norm and a linear layer from every token to a teacher's K features (CAE v2, arXiv 2211.09799)."""
    decodes_cls = True

    def __init__(self, grid_size, num_outputs=512, embed_dims=768, init_cfg=None):
        super().__init__(grid_size, num_outputs, embed_dims, depth=0, init_cfg=init_cfg)

    @staticmethod
    def positions(visible: Tensor, masked: Tensor) -> Tensor:
        """(B, 1 + N) int64: the class token, which is -1, then visible and masked patches."""
        return torch.cat([visible.new_full((len(visible), 1), -1), visible, masked], dim=1)

    def decode(self, predicted: Tensor, masked: Tensor, context: Tensor) -> Tensor:
        """All but the last layer: (B, M, D), with ``context`` (B, 1 + V, D) -> (B, 1 + N, D)."""
        return self.norm(torch.cat([context, predicted], dim=1))

    def loss(self, decoded: Tensor, target: Tensor) -> tuple[Tensor, None]:
        """1 - cosine of predicted and true features (B, 1 + N, K), the mean of all tokens, in float32."""
        features = self.head(decoded).float()
        return 1 - F.cosine_similarity(features, target.float(), dim=-1).mean(), None
