"""The encoder: a plain vision transformer, in pre-training and below every downstream head."""
import torch
import torch.nn.functional as F
from mmengine.model import initialize
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.registry import MODELS
from timm.layers import to_2tuple
from torch import Tensor, nn

from cae_mm.models.layers import (
    LAYER_NORM_EPS,
    TransformerBlock,
    gather_tokens,
    init_token,
    init_transformer,
    patchify,
    run_block,
)
from cae_mm.positions import cached_sincos_positions, is_sincos, resize_positions, sincos_positions

# name -> embed_dims, num_layers, num_heads. The official tiny and small have 12 heads; timm's 3 and 6.
ARCHITECTURES = {
    'tiny': (192, 12, 12),
    'small': (384, 12, 12),
    'base': (768, 12, 12),
    'large': (1024, 24, 16),
    'huge': (1280, 32, 16),
    'giant': (1408, 40, 16),
    'deit-tiny': (192, 12, 3),
    'deit-small': (384, 12, 6),
}
# 'cae_vitb' of get_model is 'base', 'cae_deits' is 'deit-small'.
ENCODERS = {f'cae_{arch.rpartition("-")[0] or "vit"}{arch.rpartition("-")[2][0]}': arch
            for arch in ARCHITECTURES}
OUT_TYPES = ('cls_token', 'featmap', 'avg_featmap', 'raw')
POS_MODES = ('recompute', 'resize')


def parse_arch(arch: str | dict) -> tuple[int, int, int]:
    """Width, depth and heads of a named architecture, or of a dict that states them; else a ValueError."""
    if isinstance(arch, str) and arch in ARCHITECTURES:
        return ARCHITECTURES[arch]
    keys = ('embed_dims', 'num_layers', 'num_heads')
    if isinstance(arch, dict) and set(arch) == set(keys):
        return tuple(arch[key] for key in keys)
    raise ValueError(f'arch={arch!r} is neither one of {", ".join(ARCHITECTURES)} nor a dict of '
                     f'{", ".join(keys)}')


class PlainViT(BaseBackbone):
    """What ours and timm's share: grid, taps, forms of the output, frozen blocks, initialisation."""
    pretrained: str  # what mmengine's 'Pretrained', which only warns of what is missing, is here

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in an image of ``height`` x ``width`` pixels, or a ValueError."""
        if height % self.patch_size or width % self.patch_size:
            p = self.patch_size
            raise ValueError(f'an image of {height}x{width} pixels has no whole number of patches of '
                             f'{p}: resize or pad to {-(-height // p) * p}x{-(-width // p) * p}')
        return height // self.patch_size, width // self.patch_size

    def _choose_blocks(self, out_indices, frozen_stages):
        indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
        self.out_indices = sorted({i % self.num_layers for i in indices if -1 <= i < self.num_layers})
        if len(self.out_indices) != len(indices):
            raise ValueError(f'out_indices={out_indices}: there are {self.num_layers} blocks, '
                             f'0..{self.num_layers - 1}, and -1 for the last')
        if not -1 <= frozen_stages <= self.num_layers:
            raise ValueError(f'frozen_stages={frozen_stages} is not in -1..{self.num_layers}')
        self.frozen_stages = frozen_stages

    def _padded(self, images: Tensor) -> Tensor:
        below, right = (-side % self.patch_size for side in images.shape[-2:])
        padded = self.out_type == 'featmap' and (below or right)
        return F.pad(images, (0, right, 0, below)) if padded else images

    def _outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        taps, grid = self.tokens(images, self.out_indices)
        return tuple(self._format(tokens, grid, last=i == self.num_layers - 1)
                     for i, tokens in zip(self.out_indices, taps, strict=True))

    def _format(self, tokens: Tensor, grid: tuple[int, int], last: bool) -> Tensor:
        norm, fc_norm = self.norms if last else (nn.Identity(), nn.Identity())
        tokens = norm(tokens)
        if self.out_type == 'raw':
            return tokens
        if self.out_type == 'cls_token':
            return fc_norm(tokens[:, 0])
        patches = tokens[:, tokens.shape[1] - grid[0] * grid[1]:]
        if self.out_type == 'avg_featmap':
            return fc_norm(patches.mean(1))
        # Convolutions keep the order in memory, and mmcv's RoIAlign takes no other than this.
        return patches.transpose(1, 2).contiguous().unflatten(2, grid)

    def compile_forward(self, **options) -> None:
        """Compile each block with these arguments of torch.compile; ``state_dict`` keeps its names."""
        for block in self.blocks:
            block.compile(**options)

    def init_weights(self):
        """Initialise by ``init_cfg``; its checkpoint fills the whole encoder or is refused."""
        if cfg := self.init_cfg:
            initialize(self, dict(cfg, type=self.pretrained) if cfg['type'] == 'Pretrained' else cfg)

    def train(self, mode: bool = True):
        """Set the mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self


@MODELS.register_module()
class CAEViT(PlainViT):
    """Plain ViT with sine-cosine positions, layer scale and no key bias (CAE, section 3).

    Args:
        arch (str | dict): a name of ``ARCHITECTURES`` or a dict of embed_dims, num_layers, num_heads.
        img_size (int | tuple[int, int]): height and width of the training images, in pixels.
        patch_size (int): side of a patch, in pixels.
        in_channels (int): channels of the images.
        mlp_ratio (float): hidden channels of the MLPs / embed_dims.
        with_cls_token (bool): prepend a class token.
        out_type (str): what ``forward`` gives per tap: 'cls_token' (B, C), 'featmap' (B, C, h, w),
            'avg_featmap' (B, C) or 'raw' (B, 1 + N, C). For 'featmap', images of any size are padded with
            zeros below and on the right to whole patches: h = ceil(H / patch_size).
        out_indices (int | Sequence[int]): blocks whose outputs ``forward`` gives; -1 is the last.
        final_norm (bool): normalise the last block's output; for 'avg_featmap' after the mean (the official
            fine-tuning), for the others before the output is taken.
        use_rel_pos_bias (bool): add a learned relative position bias to each block, whose window is the
            patch grid of ``img_size``.
        pos_mode (str): positions of other patch grids than that of ``img_size``: 'recompute' the exact
            sine-cosine ones, or 'resize' the table bicubically, the checkpoint's when it is loaded and
            again in ``forward``, as the official detection and segmentation.
        drop_path_rate (float): stochastic depth of the last block; 0 in the first, linear between.
        layer_scale_init_value (float): start value of the branches' scales.
        frozen_stages (int): freeze the patch embedding and this many blocks; -1 freezes nothing.
        with_cp (bool): keep only the inputs of the blocks for the backward pass, and compute the rest
            again: less memory, a third more time.
        init_cfg (dict, optional): ``dict(type='Pretrained', checkpoint=..., prefix='backbone.')``, which
            must fill the whole encoder, see ``load_backbone``, whose options it takes.

    Raises:
        ValueError: for sizes that do not fit together.
    """
    pretrained = 'PretrainedEncoder'

    def __init__(self, arch='base', img_size=224, patch_size=16, in_channels=3, mlp_ratio=4.,
                 with_cls_token=True, out_type='cls_token', out_indices=-1, final_norm=True,
                 use_rel_pos_bias=False, pos_mode='recompute', drop_path_rate=0.,
                 layer_scale_init_value=0.1, frozen_stages=-1, with_cp=False, init_cfg=None):
        super().__init__(init_cfg)
        self.embed_dims, self.num_layers, num_heads = parse_arch(arch)
        self.patch_size = patch_size
        self.grid_size = self.grid(*to_2tuple(img_size))
        if out_type not in OUT_TYPES or (out_type == 'cls_token' and not with_cls_token):
            raise ValueError(f'out_type={out_type!r} with with_cls_token={with_cls_token}: choose '
                             f'one of {", ".join(OUT_TYPES)}; cls_token needs a class token')
        if pos_mode not in POS_MODES:
            raise ValueError(f'pos_mode={pos_mode!r}: choose one of {", ".join(POS_MODES)}')
        self.out_type, self.pos_mode, self.with_cp = out_type, pos_mode, with_cp
        self.has_cls_token, self.num_prefix_tokens = with_cls_token, int(with_cls_token)
        self._choose_blocks(out_indices, frozen_stages)

        # A convolution in name and initialisation; `embed` applies it as a matrix to chosen patches.
        self.patch_embed = nn.Conv2d(in_channels, self.embed_dims, patch_size, patch_size)
        self.cls_token = (nn.Parameter(torch.zeros(1, 1, self.embed_dims))
                          if with_cls_token else None)
        self.register_buffer('pos_embed', sincos_positions(self.embed_dims, *self.grid_size))
        self._recomputable = True
        self.blocks = nn.ModuleList(
            TransformerBlock(self.embed_dims, num_heads, mlp_ratio,
                             drop_path_rate * i / max(self.num_layers - 1, 1),
                             layer_scale_init_value,
                             window=self.grid_size if use_rel_pos_bias else None)
            for i in range(self.num_layers))
        self.norm = (nn.LayerNorm(self.embed_dims, eps=LAYER_NORM_EPS)
                     if final_norm else nn.Identity())
        self.apply(init_transformer)
        if with_cls_token:
            init_token(self.cls_token)
        self._freeze()

    @property
    def fixed_size(self) -> bool:
        """Whether positions of its blocks are for one image size."""
        return self.blocks[0].attn.rel_pos is not None

    @property
    def any_size(self) -> bool:
        """Whether it computes the exact positions of any image size."""
        return not self.fixed_size and self.pos_mode == 'recompute' and self._recomputable

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """(1, 1 + h * w, C): the table on its own grid, on others by ``pos_mode``, or a ValueError."""
        if grid == self.grid_size:
            return self.pos_embed
        if self.pos_mode == 'resize':
            return resize_positions(self.pos_embed, self.grid_size, grid)
        if not self._recomputable:
            raise ValueError(f'the position table that was loaded is not the sine-cosine one of '
                             f'{self.grid_size} patches and cannot be recomputed for {grid}: build '
                             "CAEViT with pos_mode='resize'")
        # A compiled graph computes them itself: it cannot look into a cache.
        sincos = sincos_positions if torch.compiler.is_compiling() else cached_sincos_positions
        return sincos(self.embed_dims, *grid, self.pos_embed.device).to(self.pos_embed)

    def embed(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Embed patches, gathering them first, so that only those kept cost anything.

        Args:
            images (Tensor): (B, 3, H, W), normalised.
            keep (Tensor, optional): (B, n) int64 patch indices, row-major; all N by default.

        Returns:
            Tensor: (B, 1 + n, C), class token first (absent without one), positions added.
        """
        positions = self.positions(self.grid(*images.shape[-2:]))
        patches = patchify(images, self.patch_size)
        patch_positions = positions[:, 1:]
        if keep is not None:
            patches = gather_tokens(patches, keep)
            patch_positions = gather_tokens(patch_positions, keep)
        x = F.linear(patches, self.patch_embed.weight.flatten(1), self.patch_embed.bias)
        x = x + patch_positions
        if self.cls_token is None:
            return x
        return torch.cat([(self.cls_token + positions[:, :1]).expand(x.shape[0], -1, -1), x], dim=1)

    def encode(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """The encoder of pre-training, from ``embed`` to the final norm: (B, 1 + n, C)."""
        x = self.embed(images, keep)
        for block in self.blocks:
            x = run_block(block, x, with_cp=self.with_cp)
        return self.norm(x)

    def tokens(self, images: Tensor, indices: list[int]) -> tuple[list[Tensor], tuple[int, int]]:
        """Tokens (B, P + N, C) behind some blocks, without a norm, and the grid of the patches."""
        height, width = images.shape[-2:]
        window, p = tuple(side * self.patch_size for side in self.grid_size), self.patch_size
        # Not even filled up to whole patches: segmentation heads scale their maps to the whole image.
        if self.fixed_size and (height, width) != window:
            raise ValueError(f'the relative position bias is for {window[0]}x{window[1]} pixels, the image '
                             f'has {height}x{width}: crop or pad it to that, or build CAEViT with '
                             f'img_size=({-(-height // p) * p}, {-(-width // p) * p})')
        images = self._padded(images)
        x, taps = self.embed(images), []
        for i, block in enumerate(self.blocks):
            x = run_block(block, x, with_cp=self.with_cp)
            if i in indices:
                taps.append(x)
        return taps, self.grid(*images.shape[-2:])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the blocks ``out_indices`` for (B, 3, H, W), each in the form ``out_type``.

        Raises:
            ValueError: for a size that is not a multiple of the patch, except for 'featmap', or, with
                a relative position bias, that is not ``img_size``.
        """
        return self._outputs(images)

    @property
    def norms(self) -> tuple[nn.Module, nn.Module]:
        """The final norm of all tokens, and that behind the pooling."""
        none = nn.Identity()
        return (none, self.norm) if self.out_type == 'avg_featmap' else (self.norm, none)

    def _load_from_state_dict(self, *args):
        """Load, by whichever loader, and note whether the table could be recomputed."""
        super()._load_from_state_dict(*args)
        self._recomputable = self.pos_embed.is_meta or is_sincos(self.pos_embed, self.grid_size)

    def _freeze(self):
        if self.frozen_stages < 0:
            return
        frozen = [self.patch_embed, *self.blocks[:self.frozen_stages]]
        if self.frozen_stages == self.num_layers:
            frozen.append(self.norm)
        for module in frozen:
            module.eval().requires_grad_(False)
        if self.cls_token is not None:
            self.cls_token.requires_grad_(False)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rates, and the number of depths.

        0 is the embedding, block i is i + 1; the final norm, and everything outside the backbone, is the
        last, ``num_layers + 1``. A ValueError for a name that the backbone does not have.
        """
        depths = self.num_layers + 2
        if not param_name.startswith(prefix):
            return depths - 1, depths
        part, _, rest = param_name.removeprefix(prefix).partition('.')
        if part in ('cls_token', 'pos_embed', 'patch_embed'):
            return 0, depths
        if part == 'blocks':
            return int(rest.partition('.')[0]) + 1, depths
        if part == 'norm':
            return depths - 1, depths
        raise ValueError(f'{param_name} is no parameter of {type(self).__name__} at {prefix!r}: freeze '
                         'it, or give it a layer in get_layer_depth')
