"""The head of attentive probing: one learned query reads a frozen encoder's tokens."""
import torch
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from cae_mm.models.layers import LAYER_NORM_EPS, CrossAttention, attention_weights

# The official layers are truncated at +-2, which is a hundred standard deviations. Biases are zero.
INIT = dict(type='Normal', layer='Linear', std=0.02,
            override=dict(type='Normal', name='fc', std=0.01))


@MODELS.register_module()
class AttentiveProbeHead(LinearClsHead):
    """Attentive probing: cross-attention of one query, batch norm, linear layer (CAE, section 4).

    The query starts at zero, so the attention starts uniform. It attends to the class token and all patches
    after the encoder's final norm (``out_type='raw'``), without residual or MLP. In evaluation the batch
    norm uses its running statistics; the official evaluation normalises with those of each evaluation
    batch.

    Args:
        num_classes, in_channels (int): classes, and channels C of the tokens.
        num_heads (int): attention heads, as many as the encoder's; a ValueError where they do not divide C.
        init_cfg (dict): how the linear layers start.
        kwargs: ``loss``, ``topk`` and ``cal_acc`` of mmpretrain's ClsHead.

    Source: ``AttentiveBlock`` and the attentive head of the official classification model.
    """

    def __init__(self, num_classes, in_channels, num_heads, init_cfg=INIT, **kwargs):
        super().__init__(num_classes, in_channels, init_cfg=init_cfg, **kwargs)
        self.query_token = nn.Parameter(torch.zeros(1, 1, in_channels))
        self.norm_q = nn.LayerNorm(in_channels, eps=LAYER_NORM_EPS)
        self.norm_k = nn.LayerNorm(in_channels, eps=LAYER_NORM_EPS)
        self.norm_v = nn.LayerNorm(in_channels, eps=LAYER_NORM_EPS)
        self.cross_attn = CrossAttention(in_channels, num_heads)
        self.bn = nn.BatchNorm1d(in_channels, affine=False)

    def pool(self, tokens: Tensor) -> Tensor:
        """What the query reads from all tokens: (B, 1 + N, C) -> (B, C); a ValueError for anything else."""
        if tokens.ndim != 3:
            raise ValueError(f'AttentiveProbeHead attends to all tokens (B, 1 + N, C), got '
                             f"{tuple(tokens.shape)}: build the backbone with out_type='raw'")
        query = self.norm_q(self.query_token).expand(len(tokens), -1, -1)
        return self.cross_attn(query, self.norm_k(tokens), self.norm_v(tokens))[:, 0]

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The normalised reading of the last stage's tokens, which ``fc`` classifies: (B, C)."""
        return self.bn(self.pool(feats[-1]))

    def attention(self, tokens: Tensor) -> Tensor:
        """Weights of the query on each token: (B, 1 + N, C) -> (B, heads, 1 + N), sums of 1."""
        q, k, _ = self.cross_attn.project(
            self.norm_q(self.query_token), self.norm_k(tokens), self.norm_v(tokens))
        return attention_weights(q, k)[:, :, 0]
