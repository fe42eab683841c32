"""The latent contextual regressor: from the latents of visible patches to those of masked ones."""
import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from timm.layers import DropPath, Mlp, to_2tuple
from torch import Tensor, nn

from cae_mm.models.layers import (
    LAYER_NORM_EPS,
    CrossAttention,
    gather_tokens,
    init_token,
    init_transformer,
    run_block,
)
from cae_mm.positions import sincos_positions


class RegressorBlock(nn.Module):
    """Queries of the masked patches attend to visible latents and to each other.

    Positions are added to queries and keys, not to values; the residual of the MLP starts from the
    normalised tensor. Arguments are those of ``TransformerBlock``.
    """

    def __init__(self, embed_dims, num_heads, mlp_ratio=4., drop_path_rate=0.,
                 layer_scale_init_value=0.1, attn_dims=None):
        super().__init__()
        self.norm1_q = nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS)
        self.norm1_k = nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS)
        self.norm1_v = nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS)
        self.attn = CrossAttention(embed_dims, num_heads, attn_dims)
        self.norm2 = nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(embed_dims, int(embed_dims * mlp_ratio))
        self.gamma_1 = nn.Parameter(torch.full((embed_dims,), float(layer_scale_init_value)))
        self.gamma_2 = nn.Parameter(torch.full((embed_dims,), float(layer_scale_init_value)))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, query: Tensor, visible: Tensor, pos_query: Tensor, pos: Tensor) -> Tensor:
        """Refine the queries (B, M, D) of the masked patches by the latents (B, V, D) of the visible ones.

        ``pos_query`` (B, M, D) are positions of masked, ``pos`` (B, V + M, D) of visible, then masked
        patches.
        """
        context = torch.cat([visible, query], dim=1)
        attended = self.attn(self.norm1_q(query + pos_query), self.norm1_k(context + pos),
                             self.norm1_v(context))
        query = self.norm2(query + self.drop_path(self.gamma_1 * attended))
        return query + self.drop_path(self.gamma_2 * self.mlp(query))


@MODELS.register_module()
class LatentContextualRegressor(BaseModule):
    """Predict the latents of the masked patches (CAE, section 3.2).

    Args:
        grid_size (int | tuple[int, int]): rows and columns of the patch grid.
        embed_dims (int): width D of the regressor and the decoder.
        in_dims (int, optional): width C of the encoder, D by default; where it differs, latents and
            alignment targets pass through one projection and norm.
        num_heads, depth (int): attention heads, and blocks.
        mlp_ratio, drop_path_rate, layer_scale_init_value, attn_dims: see ``TransformerBlock``; the drop
            path rate grows linearly from 0 over the blocks.
        final_norm (bool): normalise the prediction; CAE v2 does not.
        with_cp (bool): as of ``CAEViT``: less memory, more time.
    """

    def __init__(self, grid_size, embed_dims=768, in_dims=None, num_heads=12, depth=4, mlp_ratio=4.,
                 drop_path_rate=0., layer_scale_init_value=0.1, attn_dims=None, final_norm=True,
                 with_cp=False, init_cfg=None):
        super().__init__(init_cfg)
        self.embed_dims, self.in_dims, self.with_cp = embed_dims, in_dims or embed_dims, with_cp
        self.project = nn.Identity() if self.in_dims == embed_dims else nn.Sequential(
            nn.Linear(self.in_dims, embed_dims), nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.register_buffer('pos_embed', sincos_positions(embed_dims, *to_2tuple(grid_size)))
        self.blocks = nn.ModuleList(
            RegressorBlock(embed_dims, num_heads, mlp_ratio, drop_path_rate * i / max(depth - 1, 1),
                           layer_scale_init_value, attn_dims)
            for i in range(depth))
        self.norm = nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS) if final_norm else nn.Identity()
        self.apply(init_transformer)
        init_token(self.mask_token)

    def forward(self, context: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predict the masked latents: (B, M, D), after the final norm.

        Args:
            context (Tensor): (B, V, D), encoder outputs of the visible patches behind ``project``, no class
                token.
            visible, masked (Tensor): (B, V) and (B, M) int64 patch indices.
        """
        pos_masked = gather_tokens(self.pos_embed[:, 1:], masked)
        pos = torch.cat([gather_tokens(self.pos_embed[:, 1:], visible), pos_masked], dim=1)
        # The first query carries no position of its own: the blocks add it.
        query = self.mask_token.expand(*masked.shape, -1)
        for block in self.blocks:
            query = run_block(block, query, context, pos_masked, pos, with_cp=self.with_cp)
        return self.norm(query)
