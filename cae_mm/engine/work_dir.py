"""The directory of a run: who trains in it, and with which of its checkpoints the run goes on."""
import os
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from mmengine.runner import CheckpointLoader

from cae_mm.atomic import TEMPORARY, remove, replace_folder, write_atomically
from cae_mm.parts import INDEX, SUFFIX

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

RECORD, LOCK = 'last_checkpoint', 'training.lock'
INTERRUPTED = 'interrupted_iter_{}.pth'
VALIDATION_DUE = 'validation_due'  # in the message hub of a checkpoint: a signal cut its validation short
KEPT = 'keep_ckpt_ids'  # and there: the numbers of the checkpoints of a run, with the last outdated ones
RECORDED = 200  # bytes in the lock, written at once: a kill leaves the old ones or the new ones
_held = {}  # The lock of a file ends when any handle of this process on it is closed.


def on_main(function: Callable, *args):
    """What ``function`` returns on the first rank, or raises there, on all ranks."""
    outcome = [None, None]
    if is_main_process():
        try:
            outcome[0] = function(*args)
        except Exception as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def enter(cfg: Config) -> list[str]:
    """Make ``cfg.work_dir`` this training's own, and write into ``cfg`` with what it goes on.

    ``cfg.resume`` 'auto', or True without ``load_from``, stands for the newest whole checkpoint of the
    directory, see :func:`find`; where there is none, the training starts from ``load_from``. A run that
    goes on does so in its log, ``cfg.log_name``.

    Returns:
        list[str]: what the log should tell.

    Raises:
        BlockingIOError: when another process trains there.
        SystemExit: with 0 when the run is finished already; no log has been touched then.
        ValueError: see :func:`find`; when more was trained than the config asks for.
    """
    def decide():
        record, notes = lock(work_dir)
        resume = cfg.get('resume')
        path = cfg.get('load_from') if resume else None
        if resume == 'auto' or resume and path is None:
            hook = cfg.get('default_hooks', {}).get('checkpoint') or {}
            folder = checkpoint_dir(work_dir, hook.get('out_dir'))
            template = hook.get('filename_tmpl') or (
                'epoch_{}.pth' if hook.get('by_epoch', True) else 'iter_{}.pth')
            path, meta, found = find(work_dir, folder, template)
            notes += found
            # A kill came after a checkpoint was named, and before those were removed whose place it takes.
            outdated = numbered(folder, INTERRUPTED) if path else []
            if path and len(meta[KEPT]) == hook.get('max_keep_ckpts', -1) + 1 > 1:
                outdated += filter(Path.exists, forms(folder / template.format(meta[KEPT][0])))
            for other in outdated:
                if os.path.getmtime(other) < os.path.getmtime(path):
                    remove(other)
        elif path:
            meta = read_resumable(path)
        done = path and finished(path, meta, cfg)
        log = record[-1] if resume and record else ''
        if not re.fullmatch(r'[0-9]{8}_[0-9]{6}', log) or not (work_dir / log).is_dir():
            log = time.strftime('%Y%m%d_%H%M%S')
        if not done and work_dir in _held:
            text = f'{os.getpid()} {socket.gethostname()} {log}'.ljust(RECORDED)
            with suppress(OSError):  # A disk that is full has its own message, and the lock needs no text.
                os.lseek(_held[work_dir].fileno(), 0, os.SEEK_SET)
                os.write(_held[work_dir].fileno(), text.encode())
        return path, done, log, notes

    work_dir = Path(cfg.work_dir).resolve()
    path, done, cfg.log_name, notes = on_main(decide)
    if done:
        if is_main_process():
            print(*notes, done, sep='\n')
        raise SystemExit(0)
    cfg.resume = path is not None
    if path is not None:
        cfg.load_from = str(path)
    return notes


def lock(work_dir: Path) -> tuple[list[str], list[str]]:
    """Keep other trainings out of a directory until this process ends.

    The kernel ends the lock with the process, however that ends, and not with a child that loads data.

    Returns:
        tuple: what the last training wrote there, process, host and name of its log, if any; and what the
        log should tell.

    Raises:
        BlockingIOError: naming the process that trains there, and its host.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    file = _held.pop(work_dir, None) or open(
        work_dir / LOCK, 'r+', encoding='utf-8', errors='replace',
        opener=lambda path, flags: os.open(path, flags | os.O_CREAT, 0o666))
    _held[work_dir], notes = file, []
    file.seek(0)
    record = file.read().split()
    try:
        if fcntl:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        del _held[work_dir]
        who = f'process {record[0]} on {record[1]}' if len(record) == 3 else 'another process'
        raise BlockingIOError(error.errno, f'{who} is training there: wait for its end, or choose another '
                              '--work-dir', str(work_dir)) from None
    except OSError as error:
        notes.append(f'{work_dir / LOCK} cannot be locked ({error.strerror}): see to it yourself that no '
                     'other training writes there')
    return record if len(record) == 3 else [], notes


def checkpoint_dir(work_dir: str | Path, out_dir: str | None) -> Path:
    """Where a CheckpointHook with this ``out_dir`` writes.

    Raises:
        ValueError: when that is no local directory.
    """
    if '://' in str(out_dir):
        raise ValueError(f'default_hooks.checkpoint.out_dir={out_dir}: choose a local directory')
    return Path(out_dir, Path(work_dir).name) if out_dir else Path(work_dir)


def find(work_dir: Path, folder: Path, template: str) -> tuple[Path | None, dict | None, list[str]]:
    """The newest whole checkpoint of a run.

    That is the one in ``last_checkpoint`` or, where a kill came before that was written, a later one. One
    that cannot be read is left out, and so is one of another directory where this has its own.

    Args:
        work_dir (Path): directory with ``last_checkpoint``, whose name may be relative to it.
        folder (Path): directory of the checkpoints.
        template (str): what they are called, as ``epoch_{}.pth``.

    Returns:
        tuple: its path and its meta, or None twice when there is none; and what the log should tell.

    Raises:
        ValueError: naming each file and why it cannot be read, when there is none that can.
    """
    record, notes = work_dir / RECORD, []
    for path in folder.glob(f'*{SUFFIX}{TEMPORARY}'):
        whole = path.with_name(path.name.removesuffix(TEMPORARY))
        if (path / INDEX).is_file() and not whole.exists():  # All was written when the kill came.
            replace_folder(path, whole)
    files = [path for name in (INTERRUPTED, template) for path in reversed(numbered(folder, name))]
    text = record.read_text(errors='replace').strip()[:1000] if record.is_file() else None
    named = Path(os.path.normpath(work_dir / text)) if text else None
    if named is None:
        if text is not None or files:
            notes.append(f'{record} {"is missing" if text is None else "is empty"}')
    elif named in files:
        # A later one that is older is of a run that was given up for an earlier checkpoint.
        place, age = files.index(named), os.path.getmtime(named)
        files = [path for i, path in enumerate(files) if i >= place or os.path.getmtime(path) > age]
    elif files:
        notes.append(f'{record} names {text}, which is ' + (
            'of another directory and not followed' if named.exists() else 'not there'))
    elif named.exists():
        notes.append(f'{record} names {text}: {folder} has no checkpoint of its own')
        files = [named]
    else:
        raise ValueError(f'{record} names {text!r}, and there is neither that nor another checkpoint in '
                         f'{folder}: put it there, or remove {RECORD} to start anew')
    refused = []
    for path in files:
        try:
            meta = read_resumable(path)
        except (OSError, ValueError) as error:
            refused.append(f'{path} is no whole checkpoint ({error})')
            continue
        notes += refused
        if notes or path != named:
            notes.append(f'resuming from {path}')
        return path, meta, notes
    if refused:
        raise ValueError('; '.join(refused) + '. None is left to resume from: restore one, or start anew '
                         'in another --work-dir')
    return None, None, notes


def numbered(folder: Path, template: str) -> list[Path]:
    """The checkpoints in a folder whose names are the template with a number, in the numbers' order."""
    file, parts = (re.sub(r'\\{.*?\\}', '([0-9]+)', re.escape(str(form)))
                   for form in forms(Path(template)))
    found = {path: re.fullmatch(parts if path.is_dir() else file, path.name)
             for path in folder.glob('*') if path.exists()}
    return sorted((path for path in found if found[path]), key=lambda path: (
        [int(number) for number in found[path].groups()], os.path.getmtime(path)))


def forms(path: Path) -> list[Path]:
    """A checkpoint as a file, and as a folder of parts."""
    return [path, path.with_suffix(SUFFIX)]


def read_resumable(path: str | Path) -> dict:
    """The meta of a checkpoint, which is read as a whole.

    Raises:
        OSError, ValueError: when it cannot be read, or is not one of a training.
    """
    checkpoint = CheckpointLoader.load_checkpoint(str(path), map_location='meta')
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if not isinstance(meta, dict) or not all(isinstance(meta.get(key), int) for key in ('epoch', 'iter')):
        raise ValueError(f'{path} holds weights, but not where a training was: start from them with '
                         '--cfg-options load_from=PATH')
    info = checkpoint.get('message_hub', {}).get('runtime_info', {})
    return {**meta, VALIDATION_DUE: bool(info.get(VALIDATION_DUE)), KEPT: info.get(KEPT) or []}


def finished(path: str | Path, meta: dict, cfg: Config) -> str | None:
    """What to say when there is nothing left to train after a checkpoint; None when there is.

    Raises:
        ValueError: when more was trained than the config asks for.
    """
    images, key = meta.get('images', {}), 'max_epochs' if 'max_epochs' in cfg.train_cfg else 'max_iters'
    wanted, epoch, iteration = cfg.train_cfg[key], meta['epoch'], meta['iter']
    if key == 'max_epochs':
        length, size = images.get('epoch_length'), 1
        done, whole = (iteration, wanted * length) if length else (epoch, wanted)
    else:  # Iterations may have had other numbers of images, see BatchSizeHook.
        size = images.get('per_iteration', 1)
        unit = images.get('unit', size) if wanted == images.get('max_iters', wanted) else (
            cfg.train_dataloader.get('batch_size', size) * get_world_size())
        done, whole = iteration * size, wanted * unit
    if done < whole or key == 'max_epochs' and epoch < wanted:
        return None
    if done - whole >= size:
        raise ValueError(
            f'{path} has {epoch} epochs, {iteration} iterations, and train_cfg.{key}={wanted} asks for '
            'fewer: a shorter training is an earlier checkpoint, or one anew in another --work-dir')
    if meta[VALIDATION_DUE]:
        return None
    return (f'{path} is the end of this training: {key}={wanted} are done. Raise train_cfg.{key} to go on, '
            'or take another --work-dir to train again')


def record_checkpoint(work_dir: str | Path, path: str) -> None:
    """Name a checkpoint in ``last_checkpoint``: relative to the directory when it lies in it."""
    inside = Path(path).is_relative_to(work_dir)
    write_atomically((os.path.relpath(path, work_dir) if inside else path).encode(), Path(work_dir, RECORD))
