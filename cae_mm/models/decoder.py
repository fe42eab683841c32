"""The decoder: from latents of masked patches to what the patches were."""
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from timm.layers import to_2tuple
from torch import Tensor, nn

from cae_mm.models.layers import LAYER_NORM_EPS, TransformerBlock, gather_tokens, init_transformer
from cae_mm.positions import sincos_positions


@MODELS.register_module()
class CAEDecoder(BaseModule):
    """Decode masked latents without seeing the visible ones (CAE, section 3.3).

    Args:
        grid_size (int | tuple[int, int]): rows and columns of the patch grid.
        num_outputs (int): K, codes of the tokenizer, or values of a patch for pixel targets.
        embed_dims (int): width D.
        num_heads (int): attention heads.
        depth (int): blocks; with none, norm and linear layer read the latents as they are.
        mlp_ratio, drop_path_rate, layer_scale_init_value, attn_dims: see ``TransformerBlock``;
            the drop path rate grows linearly from 0 over the blocks.
    """
    decodes_cls = False

    def __init__(self, grid_size, num_outputs=8192, embed_dims=768, num_heads=12, depth=4,
                 mlp_ratio=4., drop_path_rate=0., layer_scale_init_value=0.1, attn_dims=None,
                 init_cfg=None):
        super().__init__(init_cfg)
        self.embed_dims, self.num_outputs = embed_dims, num_outputs
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

    def forward(self, predicted: Tensor, masked: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, M, D) latents at (B, M) int64 patch indices -> (B, M, K) logits or pixels.

        ``context``, the latents of class token and visible patches, is what this decoder must not see.
        """
        # Positions tell the blocks' tokens apart.
        x = predicted + gather_tokens(self.pos_embed[:, 1:], masked) if self.blocks else predicted
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    @staticmethod
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy to code indices (int64), mean squared error to pixels; in float32."""
        if target.is_floating_point():
            return F.mse_loss(logits.float(), target.float())
        return F.cross_entropy(logits.float().flatten(0, 1), target.flatten())


@MODELS.register_module()
class TokenDecoder(CAEDecoder):
    """A norm and a linear layer from every token to a teacher's features (CAE v2, arXiv 2211.09799).

    Args:
        grid_size, embed_dims: see ``CAEDecoder``.
        num_outputs (int): K, width of the teacher's features.
    """
    decodes_cls = True

    def __init__(self, grid_size, num_outputs=512, embed_dims=768, init_cfg=None):
        super().__init__(grid_size, num_outputs, embed_dims, depth=0, init_cfg=init_cfg)

    @staticmethod
    def positions(visible: Tensor, masked: Tensor) -> Tensor:
        """(B, 1 + N) int64: the class token, which is -1, then visible and masked patches."""
        return torch.cat([visible.new_full((len(visible), 1), -1), visible, masked], dim=1)

    def forward(self, predicted: Tensor, masked: Tensor, context: Tensor) -> Tensor:
        """Features of all tokens, in the order of ``positions``.

        Args:
            predicted (Tensor): (B, M, D), the regressor's output.
            masked (Tensor): not used.
            context (Tensor): (B, 1 + V, D), latents of class token and visible patches.

        Returns:
            Tensor: (B, 1 + N, K).
        """
        return self.head(self.norm(torch.cat([context, predicted], dim=1)))

    @staticmethod
    def loss(features: Tensor, target: Tensor) -> Tensor:
        """1 - cosine of (B, 1 + N, K) predicted and true features, the mean of all tokens, in float32."""
        return 1 - F.cosine_similarity(features.float(), target.float(), dim=-1).mean()
