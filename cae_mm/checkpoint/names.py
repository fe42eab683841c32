"""Reading the table of names in ``layouts``: whose names these are, and what ours are."""
import re
from collections.abc import Iterable
from functools import cache

from cae_mm.checkpoint.layouts import ENCODER, HEADS, LAYOUTS, NORMS, OTHERS, PREFIXES

Pairs = list[tuple[str, str]]


def detect_origin(state: Iterable[str], source: str | None = None) -> str:
    """Which of ``LAYOUTS`` the names of a state dict follow; with ``source`` it has to begin with that.

    A ValueError when none or several fit, or the model is one that only ``TimmViT`` holds.
    """
    for model, pattern, array in OTHERS:
        if shown := next((name for name in state if re.fullmatch(array, name)), None):
            raise ValueError(f'{shown} is of {model}, another architecture than ours. {take_timm(pattern)}')
    scores = {}
    for layout in LAYOUTS:
        pairs = theirs_to_ours(layout, prefix_of(state, layout))
        names = [name for name in (translate(name, pairs) for name in state)
                 if name and name.startswith('backbone.')]
        # Whatever else it has, an encoder embeds patches and has a first block.
        if layout.startswith(source or '') and {'backbone.patch_embed.weight',
                                                'backbone.blocks.0.norm1.weight'} <= set(names):
            scores[layout] = len(names)
    best = [layout for layout in scores if scores[layout] == max(scores.values())]
    if len(best) != 1:
        what = ' or '.join(best) if best else f'not {source}' if source else 'of no known origin'
        raise ValueError(f'a checkpoint {what}, with the arrays {some(state)}. Known origins are '
                         f'{", ".join(LAYOUTS)}: say which it is, or rename its arrays like one of them. '
                         + take_timm('vit'))
    return best[0]


def take_timm(pattern: str) -> str:
    """What to do with a vision transformer that is not ours."""
    return (f"TimmViT reads it without a conversion: --backbone timm:NAME, with a NAME of "
            f"timm.list_models('*{pattern}*')")


def rename(name: str, source: str) -> str:
    """Our name of one array of the layout ``source``, or a ValueError."""
    for prefix in PREFIXES[source]:
        ours = translate(name, theirs_to_ours(source, prefix))
        if ours is not None:
            return ours
    raise ValueError(f'{name} is no array of {source}')


def prefix_of(state: Iterable[str], layout: str) -> str:
    """What the names of the encoder begin with."""
    patches = next(row for row in ENCODER if row[0] == 'patch_embed.')[LAYOUTS.index(layout)]
    return next((prefix for prefix in PREFIXES[layout] if f'{prefix}{patches}weight' in state),
                PREFIXES[layout][-1])


def pooling_of(state: Iterable[str], layout: str) -> str | None:
    """Which of ``NORMS`` a state dict has; None for ours, whose names do not tell."""
    mean = prefix_of(state, layout) + NORMS['mean'][LAYOUTS.index(layout)] + 'weight'
    return None if layout == 'cae_mm' else 'mean' if mean in state else 'token'


@cache
def theirs_to_ours(layout: str, prefix: str) -> Pairs:
    """Templates of everything a layout may hold, and our templates of it."""
    return [(theirs, ours) for ours, theirs in _rows(layout, prefix, NORMS, HEADS[layout])]


@cache
def ours_to_theirs(layout: str, prefix: str, norm: str, kind: str) -> Pairs:
    """Our templates of one kind of model, and a layout's, where the final norm is ``norm``."""
    return _rows(layout, prefix, [norm], [kind])


def _rows(layout: str, prefix: str, norms: Iterable[str], kinds: Iterable[str]) -> Pairs:
    column = LAYOUTS.index(layout)
    pairs = [('backbone.' + row[0], prefix + row[column])
             for row in [*ENCODER, *(NORMS[norm] for norm in norms)] if row[column]]
    pairs += [pair for kind in kinds for pair in HEADS[layout].get(kind, [])]
    return [(ours + leaf, theirs + leaf) for ours, theirs in pairs
            for leaf in (('weight', 'bias') if ours.endswith('.') else ('',))]


def translate(name: str, pairs: Pairs) -> str | None:
    """The replacement of the first template that a name follows, None when there is none."""
    for template, replacement in pairs:
        if match := _pattern(template).fullmatch(name):
            return replacement.replace('*', '{}').format(*match.groups())
    return None


@cache
def _pattern(template: str) -> re.Pattern:
    return re.compile(re.escape(template).replace(r'\{\}', r'(\d+)').replace(r'\*', '(.*)'))


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name follows one of some regular expressions."""
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def some(names: Iterable[str], most: int = 6) -> str:
    """The first few names, for a message."""
    names = list(names)
    return ', '.join(names[:most]) + (', ...' if len(names) > most else '')
