"""Any plain vision transformer of timm as a backbone, with the interface of ``CAEViT``."""
import inspect
from collections import OrderedDict
from difflib import get_close_matches
from functools import lru_cache, partial

import timm
import torch
from mmpretrain.registry import MODELS
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table, to_2tuple
from timm.models import group_parameters
from torch import Tensor, nn

from cae_mm.models.vit import OUT_TYPES, PlainViT

NEEDED = ('blocks', 'patch_embed', 'forward_intermediates', 'group_matcher')
MOST_SIZES = 4  # of models that are kept for images of other sizes


def build_timm(name: str, **options) -> nn.Module:
    """A plain vision transformer of timm, with random weights and without its classifier.

    The tag of weights behind a dot of its ``name`` tells how their pixels are normalised; ``options`` are
    arguments of the model. A ValueError for a name that timm does not have, or another kind of network.
    """
    if not timm.is_model(name.partition('.')[0]):
        near = get_close_matches(name, timm.list_models(), cutoff=0.5)
        raise ValueError(f'timm {timm.__version__} has no model {name!r}: '
                         + (f'do you mean {" or ".join(near)}? ' if near else '')
                         + "timm.list_models('*vit*') lists many")
    try:
        model = timm.create_model(name, num_classes=0, **options)
    except (TypeError, AssertionError, RuntimeError) as error:
        tags = ', '.join(timm.list_pretrained(f'{name.partition(".")[0]}.*'))
        raise ValueError(f'{name} with {options}: {error}'
                         + f'; timm knows {tags}' * ('tag' in str(error))) from error
    missing = [part for part in NEEDED if not hasattr(model, part)]
    grids = {info['reduction'] for info in getattr(model, 'feature_info', ())}
    if missing or len(grids) != 1 or getattr(model.patch_embed, 'grid_size', None) is None:
        raise ValueError(f'{name} is no plain vision transformer, of blocks on one grid of patches, but a '
                         f'{type(model).__name__}: its maps are of other sizes, or the grid of its images')
    return model


@MODELS.register_module()
class TimmViT(PlainViT):
    """A plain vision transformer of timm.

    Args:
        name (str): of ``timm.list_models()`` or ``timm.list_pretrained()``, such as
            'vit_base_patch16_dinov3' or 'vit_base_patch16_224.mae'; see ``build_timm``.
        img_size (int | tuple[int, int], optional): height and width of the training images, in pixels; by
            default those of timm's weights. Images of other sizes are taken too, see ``forward``.
        patch_size (int, optional): another than the model's; the patch embedding and the positions are
            fitted when weights are loaded.
        out_type (str): what ``forward`` gives per tap: 'cls_token' (B, C), 'featmap' (B, C, h, w),
            'avg_featmap' (B, C), 'raw' (B, P + N, C) with P class and register tokens first; or 'pooled'
            (B, C), what the model's own classifier gets: class token, mean, or an attention pooling.
        out_indices, drop_path_rate, frozen_stages, with_cp: as in ``CAEViT``. What no output depends on is
            frozen too.
        final_norm (bool): normalise the last block's output as the model does: all tokens, or, where timm
            has the norm behind the pooling, the class token or the mean.
        init_cfg (dict, optional): ``dict(type='Pretrained', checkpoint=...)``, see ``load_timm``.
        **options: further arguments of the model in timm.

    Raises:
        ValueError: for unknown names, and sizes that do not fit together.
    """
    pretrained = 'PretrainedTimm'

    def __init__(self, name, img_size=None, patch_size=None, out_type='cls_token', out_indices=-1,
                 final_norm=True, drop_path_rate=0., frozen_stages=-1, with_cp=False, init_cfg=None,
                 **options):
        super().__init__(init_cfg)
        with torch.device('meta'):
            native = build_timm(name, **options)
        if 'dynamic_img_size' in inspect.signature(type(native)).parameters:
            options['dynamic_img_size'] = True
        grid, self.patch_size = native.patch_embed.grid_size, native.feature_info[0]['reduction']
        if patch_size not in (None, self.patch_size):
            options['patch_size'] = self.patch_size = patch_size
        self.name = name
        self.build = partial(build_timm, name, drop_path_rate=drop_path_rate, **options)
        own_size = tuple(side * self.patch_size for side in grid)
        img_size = to_2tuple(img_size or own_size)
        # Of the others timm resamples no weights: they stay as they are, and are fitted to each image.
        self.vit = self.build(img_size=img_size if hasattr(native, 'set_input_size') else own_size)
        self.vit.set_grad_checkpointing(with_cp)
        self.with_cp = with_cp
        self.grid_size = tuple(side // self.patch_size for side in img_size)
        self.num_layers = len(self.vit.blocks)
        self.mean, self.std = (native.pretrained_cfg[key] for key in ('mean', 'std'))
        tells = 'return_prefix_tokens' in inspect.signature(self.vit.forward_intermediates).parameters
        self.num_prefix_tokens = self.vit.num_prefix_tokens if tells else 0
        self.has_cls_token = self.num_prefix_tokens > 0 and getattr(self.vit, 'cls_token', None) is not None
        self.embed_dims = (self.vit.num_features if out_type == 'pooled'
                           else self.vit.feature_info[-1]['num_chs'])
        known = [kind for kind in (*OUT_TYPES, 'pooled') if kind != 'cls_token' or self.has_cls_token]
        if out_type not in known:
            raise ValueError(f'out_type={out_type!r}: {name} gives {", ".join(known)}')
        self.out_type, self.final_norm = out_type, final_norm
        self._choose_blocks(out_indices, frozen_stages)
        if out_type == 'pooled' and self.out_indices != [self.num_layers - 1]:
            raise ValueError(f"out_indices={out_indices}: take -1, the last block, which 'pooled' is of")
        layers = group_parameters(self.vit, self.vit.group_matcher(), reverse=True)
        self.layers = {name: min(int(layer), self.num_layers + 1) for name, layer in layers.items()}
        self.sized = OrderedDict()
        self._freeze()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the blocks ``out_indices`` for (B, 3, H, W), each in the form ``out_type``.

        At another size than ``img_size``, positions are fitted to it by timm's rules, with gradients. A
        ValueError for a size that is not a multiple of the patch, except for 'featmap', which is padded
        with zeros.
        """
        if self.out_type == 'pooled':
            self.grid(*images.shape[-2:])
            return (self._run('pooled', images),)
        return self._outputs(images)

    def encode(self, images: Tensor) -> Tensor:
        """(B, P + N, C): class and register tokens and patches, behind the norm of all tokens."""
        [tokens], _ = self.tokens(images, [self.num_layers - 1])
        return self.norm(tokens)

    @property
    def blocks(self) -> nn.Module:
        """The blocks of the model."""
        return self.vit.blocks

    @property
    def fixed_size(self) -> bool:
        """Whether positions of its blocks are for one image size."""
        return getattr(self.vit.patch_embed, 'strict_img_size', False)

    @property
    def norm(self) -> nn.Module:
        """The final norm of all tokens."""
        return getattr(self.vit, 'norm', nn.Identity()) if self.final_norm else nn.Identity()

    @property
    def fc_norm(self) -> nn.Module:
        """The final norm behind the pooling, which some models have instead."""
        return getattr(self.vit, 'fc_norm', nn.Identity()) if self.final_norm else nn.Identity()

    @property
    def norms(self) -> tuple[nn.Module, nn.Module]:
        """The final norm of all tokens, and that behind the pooling."""
        return self.norm, self.fc_norm

    def tokens(self, images: Tensor, indices: list[int]) -> tuple[list[Tensor], torch.Size]:
        """Tokens (B, P + N, C) behind some blocks, without a norm, and the grid of the patches."""
        images = self._padded(images)
        self.grid(*images.shape[-2:])
        prefix = dict(return_prefix_tokens=True) if self.num_prefix_tokens else {}
        taps = self._run('forward_intermediates', images, indices=indices, intermediates_only=True,
                         stop_early=True, **prefix)
        pairs = taps if prefix else [(tap, tap[:, :, :0, 0].transpose(1, 2)) for tap in taps]
        tokens = [torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1) for patches, first in pairs]
        return tokens, pairs[0][0].shape[2:]

    def __getstate__(self):
        return dict(self.__dict__, sized=OrderedDict())  # A copy makes its own.

    def _run(self, method: str, images: Tensor, **kwargs):
        size, vit = tuple(images.shape[-2:]), self.vit
        if self.fixed_size and size != tuple(vit.patch_embed.img_size):
            vit = self._at(size, images.device)
        if method == 'pooled':
            return vit.forward_head(vit.forward_features(images), pre_logits=True)
        return getattr(vit, method)(images, **kwargs)

    def _at(self, size: tuple[int, int], device: torch.device) -> nn.Module:
        """What timm builds for another image size, with the parameters of this one."""
        if (size, device) not in self.sized:
            while len(self.sized) >= MOST_SIZES:
                self.sized.popitem(last=False)
            with torch.device('meta'):
                other = self.sized[size, device] = self.build(img_size=size)
            other.set_grad_checkpointing(self.with_cp)
            for module in other.modules():
                for name in module._non_persistent_buffers_set:
                    module._buffers[name] = torch.empty_like(module._buffers[name], device=device)
                if hasattr(module, 'init_non_persistent_buffers'):
                    module.init_non_persistent_buffers()
        other = self.sized[size, device]
        for ours, theirs in zip(self.vit.modules(), other.modules(), strict=True):
            theirs.training = ours.training
            for kind in ('_parameters', '_buffers'):
                for name, value in getattr(ours, kind).items():
                    if value is None or name in ours._non_persistent_buffers_set:
                        continue
                    if getattr(theirs, name).shape == value.shape:
                        getattr(theirs, kind)[name] = value
                    else:
                        theirs._parameters.pop(name, None)
                        setattr(theirs, name, self._fitted(name, value, ours, theirs))
        return other

    def _fitted(self, name: str, value: Tensor, ours: nn.Module, theirs: nn.Module) -> Tensor:
        """A parameter of a module for the image size of another one."""
        if name == 'relative_position_bias_table':
            return resized_table(value, tuple(ours.window_size), tuple(theirs.window_size))
        if name == 'pos_embed':
            new, old = theirs.patch_embed.grid_size, ours.patch_embed.grid_size
            prefix = value.shape[1] - old[0] * old[1]
            return resample_abs_pos_embed(value, new, old, num_prefix_tokens=prefix)
        raise ValueError(f'{self.name} takes images of its img_size alone, which is '
                         f'{self.vit.patch_embed.img_size}: its {name} is for it')

    def _used(self, name: str) -> bool:
        """Whether an output depends on a parameter."""
        last = self.out_indices[-1]
        if self.out_type == 'pooled':
            return True
        part = name.split('.')[0]
        if part in ('norm', 'fc_norm'):
            return self.final_norm and last == self.num_layers - 1 and (
                part == 'norm' or self.out_type in ('cls_token', 'avg_featmap'))
        return self.layers[name] <= last + 1 and (part != 'cls_token' or self.num_prefix_tokens > 0)

    def _freeze(self):
        for name, parameter in self.vit.named_parameters():
            frozen = self.layers[name] <= self.frozen_stages or self.frozen_stages == self.num_layers
            if frozen or not self._used(name):
                parameter.requires_grad_(False)
        if self.frozen_stages == self.num_layers:
            self.vit.eval()
        for block in self.vit.blocks[:max(self.frozen_stages, 0)]:
            block.eval()

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """As of ``CAEViT``, by timm's groups: the final norm is with the last block."""
        depths = self.num_layers + 2
        if not param_name.startswith(prefix):
            return depths - 1, depths
        name = param_name.removeprefix(prefix).removeprefix('vit.')
        if name not in self.layers:
            raise ValueError(f'{param_name} is no parameter of {self.name} at {prefix!r}')
        return self.layers[name], depths


def resized_table(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A relative position table (rows, heads) for another window, by timm's rule, with gradients."""
    area = (2 * old[0] - 1) * (2 * old[1] - 1)
    rows, columns = (resizing(a, b).to(table) for a, b in zip(old, new, strict=True))
    grid = torch.einsum('ph,qw,hwc->pqc', rows, columns, table[:area].unflatten(0, (2 * old[0] - 1, -1)))
    return torch.cat([grid.flatten(0, 1), table[area:]])


@lru_cache(maxsize=64)
def resizing(old: int, new: int) -> Tensor:
    """(2 new - 1, 2 old - 1): what timm's rule, which is linear and separable, does along one axis."""
    size = 2 * old - 1
    basis = torch.eye(size)[:, None].expand(-1, size, -1).flatten(0, 1)
    window = new, old + 1  # Where only one side changes, the rule does not leave the other as it is.
    shape = (2 * new - 1) * (2 * old + 1), size
    return resize_rel_pos_bias_table(basis, window, shape, (old, old)).unflatten(0, (2 * new - 1, -1))[:, 0]
