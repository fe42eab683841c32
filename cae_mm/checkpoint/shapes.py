"""Is a model of ours whole, and do its arrays fit each other?"""
import re
from collections import defaultdict

from torch import Tensor

from cae_mm.checkpoint.names import some, take_timm, theirs_to_ours
from cae_mm.checkpoint.tables import TABLE, tables_of
from cae_mm.positions import grid_of, window_rows, window_text

SHARED_TABLE = 'backbone.rel_pos_bias.relative_position_bias_table'
NORM = {'backbone.norm.weight', 'backbone.norm.bias'}

# What a letter stands for is the same in the whole model, but for W, the width of the array's part, and for
# H and A, the hidden width and that of the attention, which each part has its own of.
SHAPES = [(re.compile(pattern), shape.split()) for pattern, shape in (
    (r'backbone\.patch_embed\.weight', 'W channels patch patch'),
    (r'.*_token', '1 1 W'),
    (r'.*\.pos_embed', '1 rows W'),
    (r'.*attn\.qkv\.weight', '3A W'),
    (r'.*attn\.qkv\.bias', '3A'),
    (r'.*attn\.([qv]_bias|[qv]\.bias)', 'A'),
    (r'.*attn\.[qkv]\.weight', 'A W'),
    (r'.*attn\.proj\.weight', 'W A'),
    (r'.*relative_position_bias_table', 'window heads'),
    (r'.*mlp\.fc1\.weight', 'H W'),
    (r'.*mlp\.fc1\.bias', 'H'),
    (r'.*mlp\.fc2\.weight', 'W H'),
    (r'neck\.project\.0\.weight', 'W width'),
    (r'head\.(head|fc)\.weight', 'outputs W'),
    (r'head\.(head|fc)\.bias', 'outputs'),
    (r'neck\.upsample\d(\.\d)?\.weight', 'W W 2 2'),
    (r'.*num_batches_tracked', ''),
    (r'(backbone|neck|head)\..*(\.bias|\.weight|gamma_[12]|running_mean|running_var)', 'W'),
)]

# What a model has beside its encoder and blocks, by an array that shows what it is.
BESIDE = {name: [f'{pair}.{kind}' for pair in pairs.split() for kind in ('weight', 'bias')]
          + others.split() for name, pairs, others in (
    (r'neck\.mask_token|neck\.blocks.*', 'head.norm head.head',
     'neck.mask_token neck.pos_embed head.pos_embed'),
    (r'head\.blocks.*|neck\.norm.*', 'neck.norm', ''),
    (r'neck\.project.*', 'neck.project.0 neck.project.1', ''),
    (r'head\.fc.*|neck\.bn.*', 'head.fc', ''),
    (r'neck\.bn.*', '', 'neck.bn.running_mean neck.bn.running_var'),
    (r'head\.(query_token|norm_.|cross_attn|bn).*', 'head.fc head.norm_q head.norm_k head.norm_v '
     'head.cross_attn.proj', 'head.query_token head.cross_attn.q.weight head.cross_attn.k.weight '
     'head.cross_attn.v.weight head.bn.running_mean head.bn.running_var'))}


def block_names(ours: dict[str, Tensor]) -> list[str]:
    """'backbone.blocks.0.' and so on, as far as there are arrays of them."""
    blocks = {found[0] for name in ours if (found := re.match(r'backbone\.blocks\.(\d+)\.', name))}
    return sorted(blocks, key=lambda block: (len(block), block))


def check_encoder(ours: dict[str, Tensor], final_norm: bool = True) -> None:
    """A ValueError for less than a whole encoder, by our names; ``final_norm``: its norm is needed."""
    blocks = block_names(ours)
    if beyond := [block for i, block in enumerate(blocks) if block != f'backbone.blocks.{i}.']:
        raise ValueError(f'less than a whole encoder of {len(blocks)} blocks: {beyond[0]} follows '
                         f'{blocks.index(beyond[0])} of them')
    optional = {SHARED_TABLE, *('backbone.blocks.{}.' + name for name in (
        'attn.qkv.bias', TABLE, 'attn.q.weight', 'attn.k.weight', 'attn.v.weight'))}
    whole = {name.format(i) for _, name in theirs_to_ours('cae_mm', 'backbone.') for i in range(len(blocks))
             if name.startswith('backbone.') and name not in optional}
    missing = whole - NORM - ours.keys()
    if missing:
        raise ValueError(f'less than a whole encoder of {len(blocks)} blocks, missing {len(missing)}: '
                         f'{some(sorted(missing))}')
    if final_norm and not NORM <= ours.keys():
        raise ValueError('the encoder has no final norm (norm.weight, norm.bias), without which its '
                         'features mean nothing. For detection and segmentation, which take them before '
                         'the norm, load it into CAEViT(final_norm=False)')
    for block in block_names(ours):
        hidden, inputs = ours[block + 'mlp.fc1.weight'].shape[0], ours[block + 'mlp.fc2.weight'].shape[1]
        if hidden != inputs:
            raise ValueError(f'{block}mlp.fc1 has {hidden} outputs and fc2 {inputs} inputs: a gated MLP '
                             "(SwiGLU), as EVA-02 and DINOv2's giant have, which ours is not. "
                             f"{take_timm('eva02')}, or '*dinov2*'")


def check_beside(ours: dict[str, Tensor]) -> None:
    """Refuse less than all of what stands on the encoder: a ValueError names what is missing."""
    for pattern, needed in BESIDE.items():
        shown = next((name for name in ours if re.fullmatch(pattern, name)), None)
        if shown and (missing := [name for name in needed if name not in ours]):
            raise ValueError(f'less than a whole model, with {shown}: missing {", ".join(missing[:6])}. '
                             'For the encoder they are not needed: export only the encoder')


def check_shapes(ours: dict[str, Tensor]) -> None:
    """A ValueError names arrays whose sizes contradict each other, or what a block is missing."""
    sizes, blocks = {}, defaultdict(lambda: defaultdict(set))
    for name, array in ours.items():
        part = name.split('.')[0]
        if found := re.fullmatch(r'(.*?\.blocks)\.(\d+)\.(.*)', name):
            blocks[found[1]][found[2]].add(found[3])
        shape = next((shape for pattern, shape in SHAPES if pattern.fullmatch(name)), None)
        if shape is None or name.startswith('neck.upsample') and array.dim() == 1:
            continue
        own = dict(W='width' if part == 'backbone' or 'neck.project.0.weight' not in ours
                   else 'width of the regressor', A=f'attention of the {part}', H=f'hidden {part}')
        if len(shape) != array.dim():
            raise ValueError(f'{name} has {array.dim()} dimensions, {tuple(array.shape)}: it should have '
                             f'{len(shape)}')
        for symbol, size in zip(shape, array.shape, strict=True):
            times, symbol = (3, symbol[1:]) if symbol[0] == '3' else (1, symbol)
            symbol = own.get(symbol, symbol)
            want, by = (int(symbol), '') if symbol.isdigit() else sizes.setdefault(
                symbol, (size // times, f'{name}, {tuple(array.shape)},'))
            if size != times * want or not size:
                raise ValueError(f'{name} is {tuple(array.shape)}, and {by or "it"} has {want} for its '
                                 f'{symbol}: one of them is cut, or turned')
    for part, numbers in blocks.items():
        whole = set().union(*numbers.values())
        for number in [*map(str, range(len(numbers))), *numbers]:
            if missing := whole - numbers.get(number, set()):
                raise ValueError(f'less than whole: {part}.{number} of {len(numbers)} blocks is without '
                                 f'{", ".join(sorted(missing)[:6])}')


def check_grid(ours: dict[str, Tensor], facts: dict) -> None:
    """Refuse position tables that are not for one grid of patches, and heads that do not divide the width.

    The image size among ``facts`` tells the grid, where it is known. A ValueError names table and grid.
    """
    table, patch = ours['backbone.pos_embed'], ours['backbone.patch_embed.weight'].shape[-1]
    size, heads = facts.get('img_size'), facts.get('num_heads')
    grid = tuple(side // patch for side in size) if size else grid_of(table)
    if table.shape[1] != 1 + grid[0] * grid[1]:
        raise ValueError(f'the position table has {table.shape[1]} rows, and images of {size[0]}x{size[1]} '
                         f'have {grid[0]}x{grid[1]} patches and a class token')
    for name, window in tables_of(ours).items():
        if len(window) != window_rows(grid):
            raise ValueError(f'{name} is for {window_text(window)}, the position table for '
                             f'{grid[0]}x{grid[1]}')
    if heads and table.shape[-1] % heads:
        raise ValueError(f'a width of {table.shape[-1]} does not divide into {heads} heads')
