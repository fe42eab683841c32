"""What the command-line tools share: options, the config they make, processes and threads."""
import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
DATA_KEYS = LOADERS + ('val_evaluator', 'test_evaluator', 'custom_hooks', 'default_hooks')


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share."""
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='directory of logs and checkpoints, '
                        'default: work_dirs/<name of the config>')
    parser.add_argument('--data-root', help="directory of the data, in place of the config's")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='settings to override, as in train_dataloader.batch_size=32 '
                        'data_root=PATH tokenizer=PATH')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='what started the processes')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help='set by older launchers')


def load_config(args: argparse.Namespace) -> Config:
    """Read the config of parsed options and fit it to the data, the tokenizer and this machine.

    A top-level ``data_root``, changed by ``--data-root`` or ``--cfg-options``, is put wherever the
    data loaders, evaluators and hooks used the old one. A top-level ``tokenizer`` is the checkpoint
    of ``model.target_generator``. A changed ``pretrained`` is the checkpoint of ``model.backbone``
    ('none': random weights), a changed ``num_classes`` that of ``model.head`` and the preprocessor.

    Raises:
        FileNotFoundError: when the config does not exist.
        ValueError: when the config has no part that an option is for.
    """
    if not Path(args.config).is_file():
        raise FileNotFoundError(f'there is no config {args.config}')
    cfg = Config.fromfile(args.config)
    old_root, old_pretrained, old_classes = map(cfg.get, ('data_root', 'pretrained', 'num_classes'))
    cfg.merge_from_dict(args.cfg_options or {})
    root = args.data_root or cfg.get('data_root')
    if root is not None and root != old_root:
        _replace_data_root(cfg, root, old_root)
    if cfg.get('tokenizer') is not None:
        cfg.model.target_generator.init_cfg = dict(type='Pretrained', checkpoint=cfg.tokenizer)
    if getattr(args, 'pretrained', None) is not None:
        cfg.pretrained = args.pretrained
    if cfg.get('pretrained') != old_pretrained:
        if 'backbone' not in cfg.model:
            raise ValueError(f'pretrained={cfg.pretrained}: the model of {args.config} has no backbone')
        options = cfg.model.backbone.get('init_cfg') or {}
        cfg.model.backbone.init_cfg = None if cfg.pretrained == 'none' else dict(
            options, type='Pretrained', checkpoint=cfg.pretrained, prefix='backbone.')
    if cfg.get('num_classes') != old_classes:
        for part in (cfg.model.get('head'), cfg.model.get('data_preprocessor'),
                     cfg.get('data_preprocessor')):
            if part is not None and 'num_classes' in part:
                part.num_classes = cfg.num_classes
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    for key in LOADERS:
        if cfg.get(key) is None:
            continue
        if cfg[key].get('num_workers', 0) == 0:
            cfg[key].persistent_workers = False
            cfg[key].prefetch_factor = None
        if not torch.cuda.is_available():
            cfg[key].pin_memory = False
    return cfg


def start_processes(cfg: Config) -> None:
    """Set the threads, and on CPU the process group, before the runner is built.

    mmengine assumes GPUs in a distributed run. On CPU the processes talk through gloo, the model's
    wrapper gets no device, and SyncBN becomes BN.

    Raises:
        ValueError: for a launcher other than pytorch on CPU.
    """
    os.environ.setdefault('LOCAL_RANK', '0')
    if torch.cuda.is_available():
        return
    if 'OMP_NUM_THREADS' not in os.environ:
        processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    if cfg.launcher == 'none':
        return
    if cfg.launcher != 'pytorch':
        raise ValueError(f'--launcher {cfg.launcher} needs GPUs: on CPU use tools/dist_train.sh')
    torch.distributed.init_process_group('gloo')
    cfg.setdefault('model_wrapper_cfg', ConfigDict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False)))
    cfg.model_wrapper_cfg.device_ids = None
    for node in _dicts(cfg.model):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'


def build_runner(cfg: Config) -> Runner:
    """Build the config's runner; on GPUs, ``compile_model = True`` compiles the model's forward."""
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if cfg.get('compile_model') and torch.cuda.is_available():
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.compile_forward()
    return runner


def end_processes() -> None:
    """Close the process group; without it some finished processes abort while they exit."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _dicts(node) -> Iterator[dict]:
    if isinstance(node, dict):
        yield node
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return
    for child in node:
        yield from _dicts(child)


def _replace_data_root(cfg: Config, root: str, old_root: str | None) -> None:
    old = old_root.rstrip('/') if old_root else None

    def moved(key, value):
        if isinstance(value, str):
            if old is None:
                return root if key == 'data_root' else value
            if value.rstrip('/') == old:
                return root
            if value.startswith(old + '/'):
                return str(Path(root) / value[len(old) + 1:])
        return value

    cfg.data_root = root
    for section in DATA_KEYS:
        for node in _dicts(cfg.get(section)):
            for key, value in node.items():
                node[key] = moved(key, value)
