"""Checkpoints of one origin in the names of another, whole and exact, or not at all."""
import re
from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor

from cae_mm.checkpoint.layouts import (
    BARE,
    BESIDE_ENCODER,
    DERIVED,
    ENCODER,
    HEADS,
    KINDS,
    LAYOUTS,
    NORMS,
    PREFIXES,
)

TABLE = 'attn.rel_pos.relative_position_bias_table'
SHARED_TABLE = 'backbone.rel_pos_bias.relative_position_bias_table'
SCALES = ('gamma_1', 'gamma_2')


def detect_origin(state: dict[str, Tensor], source: str | None = None) -> str:
    """Which of ``LAYOUTS`` the names of a state dict follow.

    Args:
        state (dict[str, Tensor]): of an encoder or of a model with one.
        source (str, optional): what the layout must begin with, such as 'mmpretrain'.

    Raises:
        ValueError: when none or several fit; lists some of the names and the known origins.
    """
    scores = {}
    for layout in LAYOUTS:
        names = {_translate(name, _theirs_to_ours(layout, _prefix(state, layout))) for name in state}
        # Whatever else it has, an encoder embeds patches and has a first block.
        if layout.startswith(source or '') and {'backbone.patch_embed.weight',
                                                'backbone.blocks.0.norm1.weight'} <= names:
            scores[layout] = len(names)
    best = [layout for layout in scores if scores[layout] == max(scores.values())]
    if len(best) != 1:
        what = ' or '.join(best) if best else 'no known origin' if source is None else f'not {source}'
        raise ValueError(f'{what}: {some(state)}. Known origins are {", ".join(LAYOUTS)}: say which it '
                         'is, or rename the arrays as one of them does')
    return best[0]


def convert(state: dict[str, Tensor], source: str | None = None, target: str = 'cae_mm',
            export: str = 'full', pooling: str | None = None,
            report: list[str] | None = None) -> dict[str, Tensor]:
    """Translate a state dict exactly: both models compute the same.

    A bias of the keys, which timm's and mmpretrain's ViT have, adds the same number to all logits
    of a query, so that the softmax removes it: it is dropped coming in and zero going out. A model
    without layer scale comes in with scales of 1.

    Args:
        state (dict[str, Tensor]): of an encoder, a pre-training model, a classifier or a probe.
        source (str, optional): one of ``LAYOUTS``; detected by default.
        target (str): one of ``LAYOUTS``.
        export (str): 'full' translates every array, 'encoder' leaves out what stands on it.
        pooling (str, optional): what the target normalises, 'token' (all tokens) or 'mean' (the mean
            of the patch tokens); by default the mean for a classifier, otherwise the tokens.
        report (list[str], optional): what happened is appended, line by line.

    Raises:
        ValueError: for an unknown origin, less than a whole encoder, or arrays that have no place
            in the target; names them.
    """
    if target not in LAYOUTS or export not in ('full', 'encoder') or pooling not in (None, *NORMS):
        raise ValueError(f'target={target!r}, export={export!r}, pooling={pooling!r}: choose of '
                         f'{", ".join(LAYOUTS)}; full, encoder; {", ".join(NORMS)}')
    ours = to_ours(state, detect_origin(state, source), export, report)
    check_encoder(ours)
    return from_ours(ours, target, pooling)


def rename(name: str, source: str) -> str:
    """Our name of one array of the layout ``source``.

    Raises:
        ValueError: when the layout has no such array.
    """
    for prefix in PREFIXES[source]:
        ours = _translate(name, _theirs_to_ours(source, prefix))
        if ours is not None:
            return ours
    raise ValueError(f'{name} is no array of {source}')


def to_ours(state: dict[str, Tensor], layout: str, export: str = 'full',
            report: list[str] | None = None) -> dict[str, Tensor]:
    """Our names and arrays of a state dict, whole or not; the arguments are those of ``convert``."""
    prefix = _prefix(state, layout)
    pairs = _theirs_to_ours(layout, prefix)
    ours, origin, left_out, unplaced = {}, {}, [], []
    for name, value in state.items():
        new = _translate(name, pairs)
        beside = (not new.startswith('backbone.') if new else not name.startswith(prefix)
                  or _matches(name.removeprefix(prefix), BESIDE_ENCODER))
        if _matches(name, DERIVED) or beside and export == 'encoder':
            left_out.append(name)
        elif new is None:
            unplaced.append(name)
        elif new in ours:
            raise ValueError(f'{origin[new]} and {name} are both {new} of our model, which has one: '
                             'this architecture is another')
        else:
            ours[new], origin[new] = value, name
    if unplaced:
        raise ValueError(f'{len(unplaced)} arrays of this {layout} checkpoint have no place in our '
                         f'model: {some(unplaced)}. If they do not belong to the encoder, take only '
                         'the encoder (export); else the architecture is another')
    notes = _complete(ours, layout)
    if report is not None:
        report += [f'left out {len(left_out)}: {some(left_out)}'] * bool(left_out) + notes
    return ours


def _complete(ours: dict[str, Tensor], layout: str) -> list[str]:
    """Bring the arrays that another architecture lays out differently into our form."""
    notes, key_biases, scales = [], 0, 0
    shared = ours.pop(SHARED_TABLE, None)
    for block in block_names(ours):
        if shared is not None:
            ours[block + TABLE] = shared
        if (bias := ours.pop(block + 'attn.qkv.bias', None)) is not None:
            ours[block + 'attn.q_bias'], key_bias, ours[block + 'attn.v_bias'] = bias.chunk(3)
            key_biases += bool(key_bias.any())
        if not any(block + scale in ours for scale in SCALES) and block + 'norm1.weight' in ours:
            ours |= {block + scale: torch.ones_like(ours[block + 'norm1.weight']) for scale in SCALES}
            scales += 1
    if key_biases:
        notes.append(f'dropped the key biases of {key_biases} blocks, which the softmax removes')
    if scales:
        notes.append(f'{scales} blocks have no layer scale: 1')
    tables = tables_of(ours)
    # The official attentive probing makes them, and freezes them at zero.
    if 'head.query_token' in ours and layout == 'official' and tables and not any(
            table.any() for table in tables.values()):
        for name in tables:
            del ours[name]
        notes.append(f'left out {len(tables)} relative position tables that are zero')
    if 'neck.mask_token' in ours and layout != 'cae_mm':
        # One table serves the regressor and the decoder, or all three.
        ours.setdefault('neck.pos_embed', ours['backbone.pos_embed'])
        ours['head.pos_embed'] = ours['neck.pos_embed']
    return notes


def check_encoder(ours: dict[str, Tensor], final_norm: bool = True) -> None:
    """Refuse less than a whole encoder.

    Args:
        ours (dict[str, Tensor]): with our names.
        final_norm (bool): it must have its final norm.

    Raises:
        ValueError: naming what is missing.
    """
    optional = {'backbone.blocks.{}.attn.qkv.bias', f'backbone.blocks.{{}}.{TABLE}', SHARED_TABLE}
    norm = {'backbone.norm.weight', 'backbone.norm.bias'}
    blocks = range(len(block_names(ours)))
    whole = {name.format(i) for name, _ in _theirs_to_ours('cae_mm', 'backbone.')
             if name.startswith('backbone.') and name not in optional for i in blocks}
    missing = whole - ours.keys() - norm
    if missing:
        raise ValueError(f'less than a whole encoder of {len(blocks)} blocks, missing '
                         f'{len(missing)}: {some(sorted(missing))}')
    if final_norm and not norm <= ours.keys():
        raise ValueError('the encoder has no final norm (norm.weight, norm.bias), which its features '
                         'need: it can be loaded into CAEViT(final_norm=False), as detection and '
                         'segmentation use it')
    for block in block_names(ours):
        hidden = ours[block + 'mlp.fc1.weight'].shape[0], ours[block + 'mlp.fc2.weight'].shape[1]
        if hidden[0] != hidden[1]:
            raise ValueError(f'{block}mlp has {hidden[0]} channels in fc1 and {hidden[1]} in fc2: it '
                             'is a gated MLP (SwiGLU), and ours is not')


def from_ours(ours: dict[str, Tensor], target: str, pooling: str | None = None) -> dict[str, Tensor]:
    """The names and arrays of another layout; arguments as those of ``convert``."""
    kind = kind_of(ours)
    prefix = PREFIXES[target][-1 if kind in BARE.get(target, ()) else 0]
    norm = pooling or ('mean' if kind == 'classifier' else 'token')
    pairs = _ours_to_theirs(target, prefix, norm, kind)
    ours = dict(ours)
    if _translate('backbone.blocks.0.attn.q_bias', pairs) is None:
        for block in block_names(ours):
            q, v = (ours.pop(f'{block}attn.{name}_bias') for name in 'qv')
            ours[block + 'attn.qkv.bias'] = torch.cat([q, torch.zeros_like(q), v])
    if kind == 'pre-training' and target != 'cae_mm':
        for name in ('head.pos_embed', 'neck.pos_embed')[:1 if target == 'official' else 2]:
            of = 'neck.pos_embed' if target == 'official' else 'backbone.pos_embed'
            if not torch.equal(ours[name], ours[of]):
                raise ValueError(f'{name} differs from {of}, and {target} has one table for both: '
                                 'export the encoder')
            del ours[name]
    names = {name: _translate(name, pairs) for name in ours}
    unplaced = [name for name, new in names.items() if new is None]
    if unplaced:
        raise ValueError(f'{len(unplaced)} arrays of this {kind} model have no place in {target}: '
                         f'{some(unplaced)}. Export only the encoder, or choose another target')
    return {new: ours[name] for name, new in names.items()}


def kind_of(ours: dict[str, Tensor]) -> str:
    """'pre-training', 'linear probe', 'attentive probe', 'classifier', or 'encoder' alone."""
    return next((kind for kind, name in KINDS.items() if name in ours), 'encoder')


def block_names(ours: dict[str, Tensor]) -> list[str]:
    """'backbone.blocks.0.' and so on, up to the highest number there is."""
    numbers = [int(match[1]) for name in ours
               if (match := re.match(r'backbone\.blocks\.(\d+)\.', name))]
    return [f'backbone.blocks.{i}.' for i in range(max(numbers, default=-1) + 1)]


def tables_of(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The relative position tables of the encoder."""
    return {name: value for name, value in ours.items() if name.endswith('.' + TABLE)}


def some(names: Iterable[str], most: int = 6) -> str:
    """The first few names, for a message."""
    names = list(names)
    return ', '.join(names[:most]) + (', ...' if len(names) > most else '')


def _prefix(state: dict[str, Tensor], layout: str) -> str:
    patches = next(row for row in ENCODER if row[0] == 'patch_embed.')[LAYOUTS.index(layout)]
    return next((prefix for prefix in PREFIXES[layout] if f'{prefix}{patches}weight' in state),
                PREFIXES[layout][-1])


def _rows(layout: str, prefix: str, norms: Iterable[str], kinds: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of our template and theirs, with weight and bias written out."""
    column = LAYOUTS.index(layout)
    pairs = [('backbone.' + row[0], prefix + row[column])
             for row in [*ENCODER, *(NORMS[norm] for norm in norms)] if row[column]]
    pairs += [pair for kind in kinds for pair in HEADS[layout].get(kind, [])]
    return [(ours + leaf, theirs + leaf) for ours, theirs in pairs
            for leaf in (('weight', 'bias') if ours.endswith('.') else ('',))]


@cache
def _theirs_to_ours(layout: str, prefix: str) -> list[tuple[str, str]]:
    return [(theirs, ours) for ours, theirs in _rows(layout, prefix, NORMS, HEADS[layout])]


@cache
def _ours_to_theirs(layout: str, prefix: str, norm: str, kind: str) -> list[tuple[str, str]]:
    return _rows(layout, prefix, [norm], [kind])


@cache
def _pattern(template: str) -> re.Pattern:
    return re.compile(re.escape(template).replace(r'\{\}', r'(\d+)').replace(r'\*', '(.*)'))


def _translate(name: str, pairs: list[tuple[str, str]]) -> str | None:
    for template, replacement in pairs:
        if match := _pattern(template).fullmatch(name):
            return replacement.replace('*', '{}').format(*match.groups())
    return None


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)
