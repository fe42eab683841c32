"""Loading checkpoints whole or not at all: the encoder from any origin, or a model exactly."""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import WEIGHT_INITIALIZERS
from mmpretrain.registry import HOOKS
from torch import Tensor, nn

from cae_mm.checkpoint.convert import convert, detect_origin, to_ours
from cae_mm.checkpoint.facts import (
    FACTS,
    KEY,
    check_pixels,
    contradictions,
    facts_in,
    facts_of,
    heads_of,
)
from cae_mm.checkpoint.files import FileError, read_weights
from cae_mm.checkpoint.shapes import block_names, check_encoder, check_grid, check_shapes
from cae_mm.checkpoint.sources import fetch
from cae_mm.checkpoint.tables import TABLE, tables_of
from cae_mm.models.vit import ARCHITECTURES, ENCODERS, CAEViT
from cae_mm.positions import (
    grid_of,
    recomputed,
    resize_window,
    resized,
    sincos_grid,
    window_of,
    window_text,
)


def compare(own: dict[str, Tensor], given: dict[str, Tensor]) -> str:
    """Name every key that is missing, unexpected, or of another shape or kind; '' when all fit."""
    both = [(name, own[name], given[name]) for name in own.keys() & given.keys()]
    shapes = [f'{name}: {tuple(theirs.shape)} in the file, {tuple(ours.shape)} in the model'
              for name, ours, theirs in both if theirs.shape != ours.shape]
    kinds = [f'{name}: {theirs.dtype} in the file, {ours.dtype} in the model'
             for name, ours, theirs in both if theirs.is_floating_point() != ours.is_floating_point()]
    lists = {'missing': own.keys() - given.keys(), 'unexpected': given.keys() - own.keys(),
             'of another shape': shapes, 'of another kind': kinds}
    return '; '.join(f'{len(names)} {what}: {", ".join(sorted(names)[:8])}'
                     + (', ...' if len(names) > 8 else '') for what, names in lists.items() if names)


def load_backbone(backbone: CAEViT, path: str | Path, prefix: str = 'backbone.',
                  resize_rel_pos: bool = False, trained_with: dict | None = None) -> None:
    """Fill the whole encoder from a checkpoint of any known origin, or raise.

    A sine-cosine table of another patch grid is replaced by that of the encoder's grid, or, with
    ``pos_mode='resize'``, any table by its bicubic enlargement. Relative position tables that it does not
    have start at zero. What is known of its training is left as ``backbone.trained_with``.

    Args:
        backbone (CAEViT): the encoder.
        path (str | Path): checkpoint of ours, the authors, mmpretrain, timm or transformers, see ``fetch``.
        prefix (str): what the encoder's keys begin with in the file; if none does, all keys count.
        resize_rel_pos (bool): resize relative position tables of another window instead of refusing them.
        trained_with (dict, optional): facts that the file does not state, or wrongly, such as
            ``dict(num_heads=12)`` for heads that are not the usual ones. None in it: not to be compared.

    Raises:
        FileNotFoundError, ValueError: see ``read_checkpoint`` and ``convert``.
        RuntimeError: when the encoder of the checkpoint is another than this one; says in what.
    """
    if unknown := set(trained_with or ()) - set(FACTS):
        raise ValueError(f'trained_with states {", ".join(unknown)}: known are {", ".join(FACTS)}')
    report, path, final_norm = [], fetch(path), not isinstance(backbone.norm, nn.Identity)
    with _named(path):
        given, layout, facts = _read(path, prefix, final_norm, report)
        facts |= trained_with or {}
        given = {name.removeprefix('backbone.'): value for name, value in given.items()
                 if final_norm or not name.startswith('backbone.norm.')}
        own = backbone.state_dict()
        _check_sizes(backbone, given, facts['num_heads'], path)
        _fit_tables(backbone.grid_size if resize_rel_pos else None, own, given, path, report)
        _fit_positions(backbone, own, given, path, layout, facts.get('img_size'), report)
    problems = compare(own, given)
    if problems:
        raise RuntimeError(f'{path} does not hold this encoder. {problems}. Build the encoder with '
                           'the options the checkpoint was trained with')
    backbone.load_state_dict(given)
    backbone.trained_with = facts
    print_log(f'loaded the whole encoder, {len(given)} arrays, from {path} ({layout}): '
              f'{"; ".join(report[1:])}', 'current')


def encoder_of(backbone: nn.Module) -> nn.Module:
    """The encoder of a model as the evaluations read it, or a ValueError.

    What has the interface of ``CAEViT`` is itself; that of mmpretrain's MAE, BEiT or CAE becomes a
    ``CAEViT`` with a copy of the weights, on their device.
    """
    if hasattr(backbone, 'encode'):
        return backbone
    state = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    given, facts = convert(state, 'mmpretrain', export='encoder'), facts_of(backbone)
    arch = dict(embed_dims=backbone.embed_dims, num_layers=backbone.num_layers,
                num_heads=facts['num_heads'])
    with torch.random.fork_rng(devices=[]):  # the training's numbers stay what they are without it
        encoder = CAEViT(arch, facts['img_size'], facts['patch_size'],
                         use_rel_pos_bias=bool(tables_of(given)))
    encoder.load_state_dict({name.removeprefix('backbone.'): value for name, value in given.items()})
    return encoder.to(next(backbone.parameters()).device)


def arguments_of(path: str | Path, num_heads: int | None = None) -> dict:
    """Arguments of the ``CAEViT`` in a checkpoint, as far as its numbers depend on them.

    ``num_heads`` are its attention heads, where the file does not tell; raises as ``load_backbone`` does.
    """
    path = fetch(path)
    with _named(path):
        ours, _, facts = _read(path, 'backbone.', final_norm=False)
        check_shapes(ours)
        facts['num_heads'] = num_heads or facts['num_heads']
        check_grid(ours, facts)
        if not facts['num_heads']:
            raise ValueError('it does not say how many attention heads it has, and all arrays fit with any '
                             'number: say num_heads')
        width, channels, patch, _ = ours['backbone.patch_embed.weight'].shape
        size = facts.get('img_size') or [side * patch for side in grid_of(ours['backbone.pos_embed'])]
    return dict(
        arch=dict(embed_dims=width, num_layers=len(block_names(ours)), num_heads=facts['num_heads']),
        img_size=tuple(size), patch_size=patch, in_channels=channels,
        mlp_ratio=len(ours['backbone.blocks.0.mlp.fc1.weight']) / width,
        final_norm='backbone.norm.weight' in ours, use_rel_pos_bias=bool(tables_of(ours)))


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    try:
        yield
    except FileError:
        raise
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def _read(path: Path, prefix: str, final_norm: bool, report: list[str] | None = None) -> tuple:
    """Arrays of a whole encoder, by our names, what layout they came in, and its facts."""
    state, meta = read_weights(path)
    state = state.under(prefix)
    layout = detect_origin(state)
    ours = to_ours(state, layout, 'encoder', report)
    check_encoder(ours, final_norm)
    return ours, layout, dict(num_heads=heads_of(ours, layout)) | facts_in(meta)


def _check_sizes(backbone: CAEViT, given: dict[str, Tensor], num_heads: int | None,
                 path: str | Path) -> None:
    ours, theirs = (
        dict(embed_dims=patches.shape[0], num_layers=sum(n.endswith('.norm1.weight') for n in state),
             num_heads=heads, patch_size=patches.shape[2], in_channels=patches.shape[1])
        for state, heads in ((backbone.state_dict(), facts_of(backbone)['num_heads']), (given, num_heads))
        for patches in [state['patch_embed.weight']])
    if other := contradictions(theirs, ours):
        named = [f", which is {name}, arch='{arch}'" for name, arch in ENCODERS.items()
                 if ARCHITECTURES[arch] == tuple(theirs.values())[:3]]
        silent = ours | dict(num_heads=num_heads) == theirs and not tables_of(given)
        raise RuntimeError(
            f'{path} holds another encoder: {other}. Build CAEViT with '
            + ', '.join(f'{name}={size}' for name, size in theirs.items() if size) + ''.join(named)
            + f'. All arrays would fit and give wrong features; that the heads are {num_heads} is stated '
            'in the file, or usual for its size and names. If it is not so, say it with trained_with='
            f'dict(num_heads={ours["num_heads"]}) in init_cfg or get_model' * silent)


def _fit_tables(window: tuple[int, int] | None, own: dict[str, Tensor], given: dict[str, Tensor],
                path: str | Path, report: list[str]) -> None:
    ours, theirs = ({name: value for name, value in state.items() if name.endswith(TABLE)}
                    for state in (own, given))
    if ours and not theirs:
        given |= {name: torch.zeros_like(value) for name, value in ours.items()}
        report.append(f'missing {len(ours)} relative position tables start at zero')
    if theirs and not ours:
        if any(value.any() for value in theirs.values()):
            raise RuntimeError(f'{path} was trained with relative position tables, for '
                               f'{window_text(next(iter(theirs.values())))}: build CAEViT with '
                               'use_rel_pos_bias=True')
        for name in theirs:
            del given[name]
    both = [name for name in ours if name in theirs]
    if window and both and (old := window_of(theirs[both[0]], given['pos_embed'])) != window:
        given |= {name: resize_window(theirs[name], old, window) for name in both}
        report.append(f'{len(both)} relative position tables resized from {old[0]}x{old[1]} to '
                      f'{window[0]}x{window[1]} patches')
        return
    for name in both:
        if len(ours[name]) != len(theirs[name]):
            raise RuntimeError(f'{path}: {name} is for {window_text(theirs[name])}, the model has '
                               f'{window_text(ours[name])}: build CAEViT with the img_size of the '
                               'checkpoint, or resize the tables with resize_rel_pos=True in init_cfg')


def _fit_positions(backbone: CAEViT, own: dict[str, Tensor], given: dict[str, Tensor],
                   path: str | Path, layout: str, img_size: list[int] | None, report: list[str]) -> None:
    table, grid = given['pos_embed'], backbone.grid_size
    sincos, same_length = sincos_grid(table), table.shape == own['pos_embed'].shape
    theirs = sincos or (img_size and tuple(side // backbone.patch_size for side in img_size))
    # The official table of a grid that is not square is that of the transposed grid.
    if same_length and theirs in (None, grid, grid[::-1] if layout == 'official' else grid):
        return
    if backbone.pos_mode == 'resize':
        old = theirs or grid_of(table)
        given['pos_embed'] = resized(table, old, grid)
        report.append(f'positions of {old[0]}x{old[1]} patches resized for {grid[0]}x{grid[1]}')
        return
    if sincos is None or same_length:
        what = f'for {theirs[0]}x{theirs[1]} patches' if same_length else 'not the sine-cosine one'
        raise RuntimeError(
            f'{path}: its position table {tuple(table.shape)} is {what}, and the model has '
            f'{grid[0]}x{grid[1]} patches: build CAEViT with the img_size of the checkpoint, or with '
            "pos_mode='resize', or change the table with tools/convert.py --img-size HEIGHT WIDTH")
    given['pos_embed'] = recomputed(table, grid)
    report.append(f'positions of {theirs[0]}x{theirs[1]} patches recomputed for {grid[0]}x{grid[1]}')


@WEIGHT_INITIALIZERS.register_module('PretrainedEncoder')
def pretrained_encoder(checkpoint: str | Path, prefix: str = '', **options) -> partial:
    """``load_backbone`` as an initializer of mmengine, with the names of its 'Pretrained'."""
    return partial(load_backbone, path=checkpoint, prefix=prefix, **options)


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Refuse a checkpoint that does not fit the model exactly, before anything is loaded.

    mmengine's Runner only warns, and resumes with random weights. What the arrays do not tell, see
    ``facts_of``, is written into every checkpoint and compared too.

    Args:
        new_parts (Sequence[str]): parts of the model that keep their initial weights when training starts
            from ``load_from``, such as 'roi_head.bbox_head.fc_cls' for other classes.
    """

    def __init__(self, new_parts: Sequence[str] = ()):
        self.new_parts = new_parts

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the facts of the encoder to the checkpoint's meta."""
        checkpoint['meta'][KEY] = facts_of(_unwrapped(runner.model))

    def before_train(self, runner) -> None:
        """Refuse a pre-trained encoder that is given other pixels, see ``check_pixels``."""
        model = _unwrapped(runner.model)
        check_pixels(getattr(model, 'backbone', model), model.data_preprocessor)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare keys, shapes and facts, by a RuntimeError, and leave the new parts out."""
        model, file = _unwrapped(runner.model), runner._load_from or 'the checkpoint'
        own, state = model.state_dict(), checkpoint.get('state_dict', checkpoint)
        if not isinstance(state, dict):
            raise ValueError(f'{file}: its state_dict is a {type(state).__name__}: save it again, whole')
        given = {k.removeprefix('module.'): v for k, v in state.items() if isinstance(v, Tensor)}
        if (self.new_parts and isinstance(runner.optim_wrapper, OptimWrapper)
                and not runner.cfg.get('resume')):
            own, given = self._without_new_parts(own, given)
            checkpoint['state_dict'] = given
        facts = facts_in(checkpoint.get('meta'))
        problems = '; '.join(filter(None, [compare(own, given), contradictions(facts, facts_of(model))]))
        if problems:
            raise RuntimeError(f'{file} is of another model than {type(model).__name__} of '
                               f'this config. {problems}. Use the config it was trained with, or '
                               'load only the encoder with backbone.init_cfg, or, to start from it with '
                               'some parts new, name them: strict_load=dict(new_parts=[...])')

    def _without_new_parts(self, own: dict[str, Tensor], given: dict[str, Tensor]) -> list[dict]:
        new = {part: [name for name in own if f'{name}.'.startswith(f'{part}.')] for part in self.new_parts}
        for part in [part for part, names in new.items() if not names]:
            near = get_close_matches(part, {name.rpartition('.')[0] for name in own}, cutoff=0)
            raise ValueError(f'new_parts: the model has no {part}; do you mean {" or ".join(near)}?')
        print_log('new parts, which keep their initial weights: ' + ', '.join(
            f'{part} ({len(names)} arrays)' for part, names in new.items()), 'current')
        return [{name: value for name, value in state.items()
                 if not any(f'{name}.'.startswith(f'{part}.') for part in new)} for state in (own, given)]


def _unwrapped(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
