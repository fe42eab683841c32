"""What the command-line tools share: the config that their options make, processes and threads."""
import argparse
import atexit
import importlib.util
import os
import re
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import init_dist
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing

from cae_mm.configs import find_config
from cae_mm.datasets.annotations import check_annotations, leaf_datasets
from cae_mm.engine.compilation import compile_model
from cae_mm.engine.keys import READERS, dicts
from cae_mm.engine.overrides import LOADERS, apply_options
from cae_mm.engine.signals import signals_end
from cae_mm.engine.work_dir import enter

# The package of a config's scope, and the extra that installs it.
PACKAGES = dict(mmdet='det', mmseg='seg')


def load_config(args: argparse.Namespace) -> Config:
    """Read the config of parsed options and fit it to the data, the tokenizer and this machine.

    Options that are short settings are put where they belong, see ``apply_options``.

    Raises:
        FileNotFoundError: when the config, or the file of ``classes``, does not exist.
        ImportError: when what detection or segmentation needs is not installed.
        ValueError: when the config cannot be read, or a file is in the place of its ``work_dir``;
            when an option changes nothing, or cannot be; see ``apply_options``.
    """
    cfg = read_config(args.config)
    check_packages(cfg)
    options = args.cfg_options or {}
    named = {key: value for key in ('data_root', 'pretrained', 'work_dir', 'backbone')
             if (value := getattr(args, key, None)) is not None}
    for key in named.keys() & options.keys():
        raise ValueError(f'--{key.replace("_", "-")} and --cfg-options {key}={options[key]}: '
                         'give one of both')
    apply_options(cfg, {**options, **named})
    cfg.launcher = args.launcher
    if cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    if Path(cfg.work_dir).exists() and not Path(cfg.work_dir).is_dir():
        raise ValueError(f'work_dir={cfg.work_dir} is a file: name a folder')
    for name, hook in [*cfg.get('default_hooks', {}).items()]:
        if hook is None and name not in READERS['default_hooks']:
            del cfg.default_hooks[name]  # None leaves it out, which mmengine takes for its own alone
    for key in LOADERS:
        if cfg.get(key) is None:
            continue
        if cfg[key].get('num_workers', 0) == 0:
            cfg[key].persistent_workers = False
            cfg[key].prefetch_factor = None
        if not torch.cuda.is_available():
            cfg[key].pin_memory = False
    return cfg


def read_config(path: str) -> Config:
    """Read a config.

    Raises:
        FileNotFoundError: when there is none of this name, see ``find_config``.
        ValueError: for whatever goes wrong in it or in its bases, naming file and line; without a model.
    """
    path = str(find_config(path))
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is Python, where anything can go wrong
        file, line = path, getattr(error, 'lineno', None)
        for frame, number in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_name in ('_file2dict', '_is_lazy_import'):  # mmengine reads this file
                file = frame.f_locals['filename']
            elif frame.f_code.co_filename == file:  # and runs it
                line = number
        what = f'{type(error).__name__}: {getattr(error, "msg", error)}'
        if isinstance(error, RecursionError):
            what = 'its _base_ leads back to itself'
        place = path if Path(file).resolve() == Path(path).resolve() else f'{path}: {Path(file).resolve()}'
        raise ValueError(f'{place}{f", line {line}" if line else ""}: {what}') from error
    if not isinstance(cfg.get('model'), dict) or 'type' not in cfg.model:
        raise ValueError(f'{path} is no config of a model: it has no model=dict(type=...)')
    return cfg


def check_packages(cfg: Config) -> None:
    """Refuse a detection or segmentation config where its package is missing.

    Raises:
        ImportError: naming what is missing and how to install it.
    """
    scope = cfg.get('default_scope')
    if scope not in PACKAGES:
        return
    if importlib.util.find_spec(scope) is None:
        raise ImportError(f'{cfg.filename} needs {scope}, which is not installed: '
                          f"pip install -e '.[{PACKAGES[scope]}]'")


def start_processes(cfg: Config) -> None:
    """Set precision, port and threads, and on CPU the process group, before the runner is built.

    Float32 is float32, in testing and validation too, not TensorFloat-32 of 10 bits. mmengine assumes GPUs
    in a distributed run. On CPU the processes talk through gloo, the model's wrapper gets no device, and
    SyncBN becomes BN.

    Raises:
        ValueError: for a launcher other than pytorch on CPU.
    """
    os.environ.setdefault('LOCAL_RANK', '0')
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision('highest')
    if 'SLURM_JOB_ID' in os.environ:  # two jobs may share a node, and mmengine takes 29500 for each
        os.environ.setdefault('MASTER_PORT', str(20000 + int(os.environ['SLURM_JOB_ID']) % 10000))
    set_wrapper(cfg)
    if torch.cuda.is_available():
        if cfg.launcher != 'none':  # as the runner would: its directory is shared out before it is built
            set_multi_processing(**cfg.env_cfg.get('mp_cfg', {}), distributed=True)
            with signals_end():
                init_dist(cfg.launcher, **cfg.env_cfg.get('dist_cfg', {}))
        return
    if 'OMP_NUM_THREADS' not in os.environ:
        processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    if cfg.launcher == 'none':
        return
    if cfg.launcher != 'pytorch':
        raise ValueError(f'--launcher {cfg.launcher} needs GPUs: on CPU use tools/dist_train.sh')
    with signals_end():
        torch.distributed.init_process_group('gloo')
    for node in dicts(cfg.model):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'


def set_wrapper(cfg: Config) -> None:
    """Write out how the processes share the model, as mmengine would without the config's options.

    Raises:
        ValueError: for a sharded model in a process without others; for a static graph whose gradients are
            not sent in each iteration, which PyTorch cannot do.
    """
    kind = cfg.get('model_wrapper_cfg', {}).get('type', 'mmpretrain.ReplicatedModel')
    sharded = kind.endswith('ShardedModel')
    if cfg.launcher == 'none':
        if sharded:
            raise ValueError('--fsdp shares the model out to the processes that tools/dist_train.sh or '
                             'tools/slurm_train.sh starts: use one of these')
        return
    wrapper = cfg.setdefault('model_wrapper_cfg', ConfigDict())
    wrapper.type = kind
    if sharded:
        ours = cfg.optim_wrapper.get('type', '').endswith('AutocastOptimWrapper')
        wrapper.amp = cfg.optim_wrapper.get('amp') if ours and torch.cuda.is_available() else False
        return
    if wrapper.get('static_graph') and cfg.get('optim_wrapper', {}).get('accumulative_counts', 1) > 1:
        raise ValueError('model_wrapper_cfg.static_graph=True does not go with '
                         'optim_wrapper.accumulative_counts: leave one of both out')
    wrapper.setdefault('broadcast_buffers', False)
    wrapper.setdefault('gradient_as_bucket_view', True)  # gradients are not copied to be sent
    wrapper.setdefault('find_unused_parameters', cfg.get('find_unused_parameters', False))
    if not torch.cuda.is_available():
        wrapper.device_ids = None


def join_processes() -> None:
    """Join the processes that torchrun started, if it did, where no runner does so.

    They wait a day for each other: the first one may have to read or write a lot.
    """
    if not torch.distributed.is_torchelastic_launched():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
    with signals_end():
        torch.distributed.init_process_group('nccl' if torch.cuda.is_available() else 'gloo',
                                             timeout=timedelta(days=1))


def check_paths(cfg: Config, *parts: str) -> None:
    """Refuse data and checkpoints that are not there, before a run has a directory.

    Raises:
        FileNotFoundError: naming the first.
    """
    loaders = filter(None, (cfg.get(f'{part}_dataloader') for part in parts))
    paths = [leaf.get('data_root') for loader in loaders for leaf in leaf_datasets(loader.dataset)]
    if 'train' in parts and not cfg.get('resume'):
        starts = [(node['backbone'] or {}).get('init_cfg') for node in dicts(cfg.model)
                  if 'backbone' in node]
        paths += [cfg.get('load_from'), *(start.get('checkpoint') for start in dicts(starts))]
    for path in filter(None, paths):
        if not re.match('.*://|hf-hub:', str(path)) and not Path(path).exists():
            raise FileNotFoundError(f'there is no {path}: give what is there, with --data-root, '
                                    '--pretrained or --cfg-options load_from=')


def build_runner(cfg: Config, *parts: str) -> Runner:
    """Build the config's runner, its model compiled as ``cfg.compile_model`` says.

    Args:
        cfg (Config): see ``load_config``.
        *parts (str): 'train', 'val' or 'test': what will run, whose annotations are checked first.

    Raises:
        BlockingIOError, SystemExit: see ``enter``.
        FileNotFoundError, ValueError: see ``check_paths``, ``enter``, ``check_annotations`` and
            ``compile_model``.
    """
    check_paths(cfg, *parts)
    changes, notes = cfg.pop('changes', ()), []
    if 'train' in parts:
        notes = enter(cfg)
        cfg.setdefault('runner_type', 'mmpretrain.TrainingRunner')
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    for change in changes:
        runner.logger.info(change)
    for note in notes:
        runner.logger.warning(note)
    check_annotations(cfg, *parts)
    compile_model(runner.model, cfg.get('compile_model'))
    return runner


def end_processes(status: int = 0) -> None:
    """Close the process group; after an error, or a distributed run on CPUs, end this process instead.

    The other processes may never come to close the group with one that failed.

    gloo's threads live as long as DDP's reducer, that is, to the end. One that lets go of a tensor
    while the interpreter is taken down aborts the process ("terminate called without an active
    exception"), now and then; and one that does so while the group is closed waits for the interpreter's
    lock, which the closing thread holds while it waits for that one (PyTorch 2.6). So neither is taken
    down, after all that the interpreter has to do at exit.
    """
    if not torch.distributed.is_initialized():
        return
    if torch.distributed.get_backend() != 'gloo' and not status:
        torch.distributed.destroy_process_group()
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
