"""Loading checkpoints whole or not at all: the encoder from any origin, or a model exactly."""
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import WEIGHT_INITIALIZERS
from mmpretrain.registry import HOOKS
from torch import Tensor, nn

from cae_mm.checkpoint.convert import check_encoder, detect_origin, to_ours
from cae_mm.checkpoint.files import read_checkpoint, state_of
from cae_mm.checkpoint.tables import TABLE
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
    """Name every key that is missing, unexpected or of another shape; '' when all fit."""
    wrong = [f'{name}: {tuple(given[name].shape)} in the file, {tuple(own[name].shape)} in the model'
             for name in own.keys() & given.keys() if given[name].shape != own[name].shape]
    lists = {'missing': own.keys() - given.keys(), 'unexpected': given.keys() - own.keys(),
             'of another shape': wrong}
    return '; '.join(f'{len(names)} {what}: {", ".join(sorted(names)[:8])}'
                     + (', ...' if len(names) > 8 else '') for what, names in lists.items() if names)


def load_backbone(backbone: nn.Module, path: str | Path, prefix: str = 'backbone.',
                  resize_rel_pos: bool = False) -> None:
    """Fill the whole encoder from a checkpoint of any known origin, or raise.

    A sine-cosine table of another patch grid is replaced by the exact one of the encoder's grid, or,
    with ``pos_mode='resize'``, any table by its bicubic enlargement. Relative position tables that
    the checkpoint does not have start at zero.

    Args:
        backbone (nn.Module): a ``CAEViT``.
        path (str | Path): checkpoint of ours, the official code, mmpretrain or timm.
        prefix (str): what the encoder's keys begin with in the file; if none does, all keys count.
        resize_rel_pos (bool): resize relative position tables of another window, see
            ``resize_window``, instead of refusing them.

    Raises:
        FileNotFoundError, ValueError: see ``read_checkpoint`` and ``convert``.
        RuntimeError: when the encoder of the checkpoint is another than this one; says in what.
    """
    report = []
    state = state_of(read_checkpoint(path))
    state = {name.removeprefix(prefix): value for name, value in state.items()
             if name.startswith(prefix)} or state
    try:
        layout = detect_origin(state)
        given = to_ours(state, layout, 'encoder', report)
        final_norm = not isinstance(backbone.norm, nn.Identity)
        check_encoder(given, final_norm)
        given = {name.removeprefix('backbone.'): value for name, value in given.items()
                 if final_norm or not name.startswith('backbone.norm.')}
        own = backbone.state_dict()
        _check_sizes(own, given, path)
        _fit_tables(backbone.grid_size if resize_rel_pos else None, own, given, path, report)
        _fit_positions(backbone, own, given, path, layout, report)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    problems = compare(own, given)
    if problems:
        raise RuntimeError(f'{path} does not hold this encoder. {problems}. Build the encoder with '
                           'the options the checkpoint was trained with')
    backbone.load_state_dict(given)
    print_log(f'loaded the whole encoder, {len(given)} arrays, from {path} ({layout}): '
              f'{"; ".join(report[1:])}', 'current')


def _sizes(state: dict[str, Tensor]) -> dict[str, int]:
    """The arguments of ``CAEViT`` that the arrays tell."""
    patches = state['patch_embed.weight']
    heads = {value.shape[1] for name, value in state.items() if name.endswith(TABLE)}
    return dict(embed_dims=patches.shape[0], patch_size=patches.shape[2], in_channels=patches.shape[1],
                num_layers=sum(name.endswith('.norm1.weight') for name in state),
                **({'num_heads': heads.pop()} if len(heads) == 1 else {}))


def _check_sizes(own: dict[str, Tensor], given: dict[str, Tensor], path: str | Path) -> None:
    ours, theirs = _sizes(own), _sizes(given)
    other = [f'{name}={theirs[name]} in the file, {ours[name]} in the model'
             for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]]
    if other:
        raise RuntimeError(f'{path} holds another encoder: {"; ".join(sorted(other))}. Build CAEViT with '
                           f'{", ".join(f"{name}={value}" for name, value in theirs.items())}')


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


def _fit_positions(backbone: nn.Module, own: dict[str, Tensor], given: dict[str, Tensor],
                   path: str | Path, layout: str, report: list[str]) -> None:
    table, grid = given['pos_embed'], backbone.grid_size
    theirs, same_length = sincos_grid(table), table.shape == own['pos_embed'].shape
    # The official table of a grid that is not square is that of the transposed grid.
    if same_length and theirs in (None, grid, grid[::-1] if layout == 'official' else grid):
        return
    if backbone.pos_mode == 'resize':
        old = grid_of(table)
        given['pos_embed'] = resized(table, old, grid)
        report.append(f'positions of {old[0]}x{old[1]} patches resized for {grid[0]}x{grid[1]}')
        return
    if theirs is None or same_length:
        what = 'not the sine-cosine one' if theirs is None else f'for {theirs[0]}x{theirs[1]} patches'
        raise RuntimeError(
            f'{path}: its position table {tuple(table.shape)} is {what}, and the model has '
            f'{grid[0]}x{grid[1]} patches: build CAEViT with the img_size of the checkpoint, or with '
            "pos_mode='resize', or change the table with tools/convert.py --img-size HEIGHT WIDTH")
    given['pos_embed'] = recomputed(table, grid)
    report.append(f'positions of {theirs[0]}x{theirs[1]} patches recomputed for {grid[0]}x{grid[1]}')


@WEIGHT_INITIALIZERS.register_module()
class PretrainedEncoder:
    """``load_backbone`` as an initializer of mmengine, for ``init_cfg``.

    Args:
        checkpoint (str): path of the file.
        prefix (str), **options: see ``load_backbone``.
    """

    def __init__(self, checkpoint, prefix='', **options):
        self.arguments = dict(path=checkpoint, prefix=prefix, **options)

    def __call__(self, module: nn.Module) -> None:
        """Fill the whole encoder, or raise."""
        load_backbone(module, **self.arguments)


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Refuse a checkpoint that does not fit the model exactly, before anything is loaded.

    Without it mmengine's Runner only warns, and resumes with random weights.
    """

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare keys and shapes.

        Raises:
            RuntimeError: naming what is missing, unexpected or of another shape.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        given = {k.removeprefix('module.'): v for k, v in checkpoint['state_dict'].items()}
        problems = compare(model.state_dict(), given)
        if problems:
            raise RuntimeError(f'the checkpoint is of another model than {type(model).__name__} of '
                               f'this config. {problems}. Use the config it was trained with, or '
                               'load only the encoder with backbone.init_cfg')
