"""Checkpoints of one origin in the form of another, whole and exact, or not at all."""
from pathlib import Path

import torch
from torch import Tensor

from cae_mm.checkpoint import layouts
from cae_mm.checkpoint.facts import KEY, facts_in, heads_of
from cae_mm.checkpoint.files import check_suffix, read_weights, write_checkpoint
from cae_mm.checkpoint.lwdetr import for_lwdetr
from cae_mm.checkpoint.names import (
    detect_origin,
    matches,
    ours_to_theirs,
    pooling_of,
    prefix_of,
    some,
    take_timm,
    theirs_to_ours,
    translate,
)
from cae_mm.checkpoint.shapes import (
    SHARED_TABLE,
    block_names,
    check_beside,
    check_encoder,
    check_grid,
    check_shapes,
)
from cae_mm.checkpoint.tables import (
    TABLE,
    check_class_row,
    fit_positions,
    relative_index,
    tables_of,
    without_positions,
)

SCALES = ('gamma_1', 'gamma_2')
REGRESSOR_NORM = {'neck.norm.weight', 'neck.norm.bias'}
NORM_OF = {'token': "all tokens, as for our out_type='cls_token'",
           'mean': "the mean of the patch tokens, as for our out_type='avg_featmap'"}


def convert(state: dict[str, Tensor], source: str | None = None, target: str = 'cae_mm',
            export: str = 'full', pooling: str | None = None, img_size: tuple[int, int] | None = None,
            positions: str | None = None, report: list[str] | None = None) -> dict[str, Tensor]:
    """Translate a state dict, of anything with an encoder, exactly: both models compute the same.

    A bias of the keys, which timm's and mmpretrain's ViT have, is removed by the softmax: it is dropped
    coming in and zero going out. A model without layer scale comes in with scales of 1.

    Args:
        source, target (str): of ``LAYOUTS``; the source is detected by default.
        export (str): 'full' translates every array, 'encoder' leaves out what stands on it.
        pooling (str, optional): what the target's final norm normalises, 'token' (all tokens) or 'mean'
            (the mean of the patch tokens); by default as in the source, and for ours, whose names do not
            tell, the mean for a classifier, else the tokens.
        img_size, positions: height and width of the target's images, see ``fit_positions``.
        report (list[str], optional): what happened is appended, line by line.

    Raises:
        ValueError: for an unknown origin, less than a whole model, or arrays without a place in the target.
    """
    for what, value, known in (('target', target, layouts.LAYOUTS), ('export', export, ('full', 'encoder')),
                               ('pooling', pooling, (None, *layouts.NORMS))):
        if value not in known:
            raise ValueError(f'{what}={value!r}: choose one of {", ".join(map(str, known))}')
    report = [] if report is None else report
    layout = detect_origin(state, source)
    ours = to_ours(state, layout, export, report)
    check_encoder(ours, final_norm=kind_of(ours) != 'feature pyramid')
    check_beside(ours)
    check_shapes(ours)
    patches = ours['backbone.patch_embed.weight'].shape
    report.insert(0, f'{layout}, {kind_of(ours)}: {len(block_names(ours))} blocks, width {patches[0]}, '
                     f'patches of {patches[2]}x{patches[3]}')
    report.insert(2, 'missing 0: the encoder is whole')
    pooling = pooling or pooling_of(state, layout)
    if img_size is not None:
        fit_positions(ours, img_size, positions, report)
    return from_ours(ours, target, pooling, report)


def convert_file(path: str | Path, out: str | Path, target: str = 'cae_mm',
                 num_heads: int | None = None, **options) -> list[str]:
    """Translate a checkpoint file, and report line by line; the new one appears whole or not at all.

    ``num_heads`` are attention heads, where the file and ``heads_of`` do not tell them. ``target`` may also
    be 'lwdetr', see ``for_lwdetr``; it, ``options`` and errors are otherwise those of ``convert``.
    """
    check_suffix(out)
    if Path(out).resolve() == Path(path).resolve():
        raise ValueError(f'{out} is the checkpoint itself: name another file to write')
    (state, given), report, lwdetr = read_weights(path), [], target == 'lwdetr'
    if lwdetr:
        options, target = dict(options, export='encoder'), 'official'
    theirs = convert(state, target=target, report=report, **options)
    layout = detect_origin(state, options.get('source'))
    ours, facts = to_ours(state, layout, 'encoder'), facts_in(given)
    facts['num_heads'] = num_heads or facts.get('num_heads') or heads_of(ours, layout)
    check_grid(ours, facts)
    facts['patch_size'] = ours['backbone.patch_embed.weight'].shape[-1]
    if options.get('img_size'):
        facts['img_size'] = list(options['img_size'])
    meta = {KEY: {name: fact for name, fact in facts.items() if fact is not None}}
    if lwdetr:
        theirs, target = for_lwdetr(theirs, facts['num_heads']), 'lwdetr'
    if 'dataset_meta' in given:  # class names, for OpenMMLab's models
        meta['dataset_meta'] = given['dataset_meta']
    write_checkpoint(theirs, out, layouts.FILE_KEYS[target], meta)
    report.append(f'wrote {len(theirs)} arrays of {target} to {out}')
    if Path(out).suffix == '.safetensors' and target not in ('cae_mm', 'timm'):
        return [*report, f"load them with safetensors.torch.load_file('{out}')"]
    return [*report, 'load them with ' + layouts.USAGE[target].format(
        out=out, heads=f'num_heads={facts["num_heads"]}, ' if facts['num_heads'] else '',
        classes=len(theirs.get('head.weight', ())), tables=any('bias_table' in n for n in theirs),
        **layouts.POOLING[not lwdetr and pooling_of(theirs, target) or 'token'])]


def to_ours(state: dict[str, Tensor], layout: str, export: str = 'full',
            report: list[str] | None = None) -> dict[str, Tensor]:
    """Our names and arrays of a state dict, whole or not; arguments and errors are those of ``convert``."""
    report = [] if report is None else report
    prefix = prefix_of(state, layout)
    pairs = theirs_to_ours(layout, prefix)
    ours, origin, left_out, unplaced = {}, {}, [], []
    for name in state:
        new = translate(name, pairs)
        beside = (not new.startswith('backbone.') if new else not name.startswith(prefix)
                  or matches(name.removeprefix(prefix), layouts.BESIDE_ENCODER))
        if matches(name, layouts.DERIVED) or beside and export == 'encoder':
            left_out.append(name)
        elif new is None:
            unplaced.append(name)
        elif new in ours:
            raise ValueError(f'{origin[new]} and {name} are both {new} of our model, which has one: '
                             'the architecture is another')
        else:
            ours[new], origin[new] = state[name], name
    if unplaced:
        way_out = ' If they do not belong to the encoder, export only the encoder.' * (export == 'full')
        raise ValueError(f'{len(unplaced)} unexpected arrays of this {layout} checkpoint have no place in '
                         f'our models, the architecture is another: {some(unplaced)}.{way_out} '
                         + take_timm('vit'))
    report.append(f'loaded {len(ours)}: {some(origin.values())}')
    report.append(f'unexpected {len(left_out)}' + (f', left out: {some(left_out)}' if left_out else ''))
    if 'backbone.norm.weight' in ours and (pooling := pooling_of(state, layout)):
        report.append(f'{origin["backbone.norm.weight"]} normalises {NORM_OF[pooling]}')
    if layout == 'official' and not any(name.startswith(('head.blocks.', layouts.COPIES[layout]))
                                        for name in (*ours, *state)):
        for name in REGRESSOR_NORM & ours.keys():
            del ours[name]
            report.append(f'{origin[name]} left out: CAE v2 has it without using it')
    _adapt(ours, layout, report)
    return ours


def _adapt(ours: dict[str, Tensor], layout: str, report: list[str]) -> None:
    """Bring what another architecture holds otherwise into our form."""
    blocks, key_biases = block_names(ours), 0
    shared = ours.pop(SHARED_TABLE, None)
    for block in blocks:
        if shared is not None:
            ours[block + TABLE] = shared
        if parts := [name for name in (f'{block}attn.{part}.weight' for part in 'qkv') if name in ours]:
            ours[block + 'attn.qkv.weight'] = torch.cat([ours.pop(name) for name in parts])
        bias = ours.pop(block + 'attn.qkv.bias', None)
        if bias is not None:
            ours[block + 'attn.q_bias'], key_bias, ours[block + 'attn.v_bias'] = bias.chunk(3)
            key_biases += bool(key_bias.any())
    if key_biases:
        report.append(f'key biases of {key_biases} blocks left out: the softmax removes them')
    scales = [block + scale for block in blocks for scale in SCALES]
    if not any(name in ours for name in scales):
        ours |= {name: torch.ones_like(ours['backbone.blocks.0.norm1.weight']) for name in scales}
        report.append('missing layer scales of all blocks: they are 1')
    if 'head.query_token' in ours and layout == 'official':
        # The official attentive probing makes tables, and freezes them at zero.
        _drop_zero_tables(ours, report)
    if layout == 'timm' and 'backbone.pos_embed' in ours:
        check_class_row(ours['backbone.pos_embed'])
    if 'backbone.pos_embed' not in ours and without_positions(ours):
        report.append('missing position table, with relative positions only: it is zero')
    if 'neck.mask_token' in ours and layout in layouts.ONE_POSITION_TABLE:
        one = layouts.ONE_POSITION_TABLE[layout]
        if one not in ours:
            raise ValueError(f'less than a whole pre-training model, missing {one}. For the encoder it '
                             'is not needed: export only the encoder')
        ours |= {name: ours[one] for name in ('neck.pos_embed', 'head.pos_embed')}


def from_ours(ours: dict[str, Tensor], target: str, pooling: str | None = None,
              report: list[str] | None = None) -> dict[str, Tensor]:
    """Names and arrays of another layout; arguments and errors are those of ``convert``."""
    ours, report = dict(ours), [] if report is None else report
    kind = kind_of(ours)
    prefix = layouts.PREFIXES[target][-1 if kind in layouts.BARE.get(target, ()) else 0]
    pooling = pooling or ('mean' if kind == 'classifier' else 'token')
    pairs = ours_to_theirs(target, prefix, pooling, kind)
    if target != 'cae_mm':
        report.append(f'in {target} the final norm normalises {NORM_OF[pooling]}')
    tables = tables_of(ours)
    if tables and translate(next(iter(tables)), pairs) is None:
        _drop_zero_tables(ours, report)
    blocks = block_names(ours)
    if translate('backbone.blocks.0.attn.q_bias', pairs) is None:
        for block in blocks:
            q, v = (ours.pop(f'{block}attn.{name}_bias') for name in 'qv')
            ours[block + 'attn.qkv.bias'] = torch.cat([q, torch.zeros_like(q), v])
    if translate('backbone.blocks.0.attn.qkv.weight', pairs) is None:
        for block in blocks:
            parts = ours.pop(block + 'attn.qkv.weight').chunk(3)
            ours |= {f'{block}attn.{name}.weight': part for name, part in zip('qkv', parts, strict=True)}
    v2 = kind == 'pre-training' and not REGRESSOR_NORM & ours.keys()
    if v2 and target == 'mmpretrain':
        raise ValueError("mmpretrain's CAE has a norm behind the regressor, and CAE v2 has none: export "
                         'only the encoder')
    if v2 and target == 'official':
        ours |= {'neck.norm.weight': torch.ones_like(ours['head.norm.weight']),
                 'neck.norm.bias': torch.zeros_like(ours['head.norm.bias'])}
        report.append('regresser.norm is written as CAE v2 has it, without using it')
    if kind == 'pre-training' and target in layouts.ONE_POSITION_TABLE:
        one = layouts.ONE_POSITION_TABLE[target]
        for name in ('neck.pos_embed', 'head.pos_embed'):
            if name != one and not torch.equal(ours.pop(name), ours[one]):
                raise ValueError(f'{name} differs from {one}, and {target} has one table for both: '
                                 'export only the encoder')
    names = {name: translate(name, pairs) for name in ours}
    unplaced = [name for name, new in names.items() if new is None]
    if unplaced:
        raise ValueError(f'{len(unplaced)} arrays of this {kind} have no place in {target}: '
                         f'{some(unplaced)}. Export only the encoder, or choose another target')
    theirs = {new: ours[name] for name, new in names.items()}
    if target != 'cae_mm' and (tables := tables_of(ours)):
        index = relative_index(ours)
        if index is None:
            report.append('the window is not square: the target makes its relative_position_index itself')
        else:
            theirs |= {names[name].replace('bias_table', 'index'): index for name in tables}
    if kind == 'pre-training' and target in layouts.COPIES and not v2:
        copy = layouts.COPIES[target]
        theirs |= {copy + name.removeprefix(prefix): value for name, value in theirs.items()
                   if name.startswith(prefix)}
    return theirs


def kind_of(ours: dict[str, Tensor]) -> str:
    """One of ``KINDS``, or 'encoder' alone."""
    return next((kind for kind, name in layouts.KINDS.items() if name in ours), 'encoder')


def _drop_zero_tables(ours: dict[str, Tensor], report: list[str]) -> None:
    tables = tables_of(ours)
    if tables and not any(table.any() for table in tables.values()):
        for name in tables:
            del ours[name]
        report.append(f'{len(tables)} relative position tables left out: they are zero')
