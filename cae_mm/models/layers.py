"""What the encoder, the regressor and the decoder are made of."""
import torch
import torch.nn.functional as F
from mmpretrain.models.backbones.beit import RelativePositionBias
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LAYER_NORM_EPS = 1e-6
PLAIN_TOKENS = 1024


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut (B, C, H, W) into patches (B, N, C * p * p), row-major; p divides H and W."""
    patches = images.unflatten(2, (-1, patch_size)).unflatten(4, (-1, patch_size))  # B, C, h, p, w, p
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick ``index`` (B, n) along dimension 1 of ``tokens`` (B or 1, N, C): (B, n, C)."""
    tokens = tokens.expand(index.shape[0], -1, -1)
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def inner_dims(embed_dims: int, num_heads: int, attn_dims: int | None) -> int:
    """Width of all heads together, ``embed_dims`` unless told; a ValueError where it has no equal parts."""
    dims = embed_dims if attn_dims is None else attn_dims
    if dims % num_heads:
        raise ValueError(f'{dims} channels do not split into {num_heads} heads: choose a number of '
                         f'heads that divides {dims}, or attn_dims={dims // num_heads * num_heads}')
    return dims


def attention_weights(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """The softmax that fused attention does not keep: (B, heads, m, n), whose rows sum to 1.

    Of queries (B, heads, m, d), keys (B, heads, n, d) and a bias (heads, m, n) of the logits.
    """
    logits = (q * q.shape[-1] ** -0.5) @ k.mT
    return (logits if bias is None else logits + bias).softmax(-1)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Values (B, heads, n, d), weighted as by ``attention_weights``: (B, heads, m, d).

    In bfloat16 on a CPU the backward pass of PyTorch's fused attention takes longer than that of plain
    products: where there are gradients and at most ``PLAIN_TOKENS`` keys, whose weights are kept, it is
    these.
    """
    slow = q.device.type == 'cpu' and q.dtype == torch.bfloat16 and q.requires_grad
    if slow and k.shape[2] <= PLAIN_TOKENS:
        return attention_weights(q, k, bias) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class SelfAttention(nn.Module):
    """Multi-head self-attention with biases on queries and values and none on keys.

    ``attn_dims`` is the width of all heads together, ``embed_dims`` by default; ``window`` the patch grid
    (rows, columns) of a learned relative position bias.
    """

    def __init__(self, embed_dims, num_heads, attn_dims=None, window=None):
        super().__init__()
        dims = inner_dims(embed_dims, num_heads, attn_dims)
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * dims, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dims))
        self.v_bias = nn.Parameter(torch.zeros(dims))
        self.proj = nn.Linear(dims, embed_dims)
        self.rel_pos = RelativePositionBias(window, num_heads) if window else None
        if window:  # The index follows from the window: checkpoints carry only the table.
            self.rel_pos.register_buffer('relative_position_index',
                                         self.rel_pos.relative_position_index, persistent=False)

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values of (B, n, C): (3, B, heads, n, d)."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias)
        return qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, C) -> (B, n, C)."""
        q, k, v = self.project(x)
        x = attend(q, k, v, None if self.rel_pos is None else self.rel_pos().to(q.dtype))
        return self.proj(x.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention of queries to other tokens; keys have no bias. See ``SelfAttention``."""

    def __init__(self, embed_dims, num_heads, attn_dims=None):
        super().__init__()
        dims = inner_dims(embed_dims, num_heads, attn_dims)
        self.num_heads = num_heads
        self.q = nn.Linear(embed_dims, dims)
        self.k = nn.Linear(embed_dims, dims, bias=False)
        self.v = nn.Linear(embed_dims, dims)
        self.proj = nn.Linear(dims, embed_dims)

    def project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Queries (B, heads, m, d), keys and values (B, heads, n, d)."""
        return tuple(layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
                     for layer, x in ((self.q, query), (self.k, key), (self.v, value)))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, m, C), (B, n, C), (B, n, C) -> (B, m, C)."""
        q, k, v = self.project(query, key, value)
        x = attend(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Pre-norm transformer block with layer scale, as in BEiT; the attention's arguments as there.

    ``drop_path_rate`` is the probability of dropping a residual branch, per sample, and
    ``layer_scale_init_value`` the start of the per-channel scale of each.
    """

    def __init__(self, embed_dims, num_heads, mlp_ratio=4., drop_path_rate=0.,
                 layer_scale_init_value=0.1, attn_dims=None, window=None):
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS)
        self.attn = SelfAttention(embed_dims, num_heads, attn_dims, window)
        self.norm2 = nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(embed_dims, int(embed_dims * mlp_ratio))
        self.gamma_1 = nn.Parameter(torch.full((embed_dims,), float(layer_scale_init_value)))
        self.gamma_2 = nn.Parameter(torch.full((embed_dims,), float(layer_scale_init_value)))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, C) -> (B, n, C)."""
        x = x + self.drop_path(self.gamma_1 * self.attn(self.norm1(x)))
        return x + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x)))


def run_block(block: nn.Module, *inputs: Tensor, with_cp: bool) -> Tensor:
    """Run a block; ``with_cp`` keeps only its inputs, and computes the rest again for the gradients."""
    if with_cp and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)


def init_transformer(module: nn.Module) -> None:
    """Initialise as the official runs: Xavier-uniform linear layers, everything else at rest.

    Normal draws (convolution, class token, mask token) are truncated at one standard deviation.
    The fused qkv matrix is one linear layer of shape (3C, C), which sets its Xavier bound.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        init_token(module.weight)
        nn.init.zeros_(module.bias)


def init_token(parameter: Tensor) -> None:
    """Truncated normal, std 0.02 cut at +-0.02 (so the effective deviation is 0.0108)."""
    nn.init.trunc_normal_(parameter, std=0.02, a=-0.02, b=0.02)
