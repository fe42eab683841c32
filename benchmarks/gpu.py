"""All that a GPU has to show, in one command of at most nine minutes.

    python benchmarks/gpu.py --out gpu_results                # one GPU
    python benchmarks/gpu.py --device cpu --toy --out DIR     # the same code in seconds, for tests

Each section is a process of its own, with a limit of its own: what fails, hangs or has no time left is a
row that says so, and costs the others nothing. OUT/gpu.md and OUT/gpu.json are written anew with each row.
"""
import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

START = time.time()
# CUDA must not be in use where processes are forked, and asking whether there is any would begin it.
os.environ['PYTORCH_NVML_BASED_CUDA_CHECK'] = '1'
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import dataloader  # noqa: E402
import gpu_runs  # noqa: E402
import gpu_steps  # noqa: E402
import torch  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402

# In this order; seconds at most. What one leaves, the last one gets.
SECTIONS = {
    'training': (gpu_runs.training, 100), 'resume': (gpu_runs.resume, 40), 'ddp': (gpu_runs.ddp, 30),
    'loader': (gpu_runs.loader, 30), 'downstream': (gpu_steps.downstream, 90),
    'pretraining': (gpu_steps.pretraining, 0)}
TITLES = {
    'training': 'A training on JPEGs: losses against those of the CPU',
    'resume': 'Killed by SIGKILL and resumed, against a run that was not',
    'ddp': 'DistributedDataParallel with one rank',
    'loader': 'The input pipeline on JPEGs of 500x375',
    'downstream': 'Steps of fine-tuning, detection and segmentation',
    'pretraining': 'Steps of pre-training: images/s, MFU, and milliseconds of each part alone, eager'}
PACKAGES = ['torch', 'torchvision', 'triton', 'timm', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmpretrain',
            'onedl-mmdetection', 'onedl-mmsegmentation']


def work(section: str, args: argparse.Namespace, deadline: float, pipe) -> None:
    """Send the rows of a section, and the error that ends it, from this process to the one above."""
    MMLogger.get_current_instance().setLevel('ERROR')
    try:
        if args.device == 'cuda':
            torch.backends.cudnn.allow_tf32 = False  # as in trainings, see start_processes
        for row in SECTIONS[section][0](args, lambda: deadline - time.time()):
            pipe.send(row)
    except BaseException as error:
        traceback.print_exc()
        pipe.send(dict(failed=f'{type(error).__name__}: {error}'.split('\n')[0][:200]))
    pipe.send(None)
    sys.stdout.flush()
    os._exit(0)  # not waiting for what it has started


def rows_of(section: str, args: argparse.Namespace, deadline: float):
    """The rows of a section as they come, in a process that is killed behind its deadline."""
    context = multiprocessing.get_context(args.start)
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(section, args, deadline, theirs))
    process.start()
    theirs.close()
    try:
        while ours.poll(max(0, deadline + 15 - time.time())):
            row = ours.recv()
            if row is None:
                return
            yield row
        yield dict(failed='killed: out of time')
    except EOFError:
        process.join(10)
        yield dict(failed=f'its process ended with exit status {process.exitcode}')
    finally:
        process.kill()
        process.join()


def facts(args: argparse.Namespace) -> dict[str, str]:
    """What the numbers belong to."""
    found = dict(date=time.strftime('%Y-%m-%d'), python=platform.python_version(),
                 cores=str(os.cpu_count()))
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = '-'
    if args.device == 'cuda':
        query = 'name,memory.total,driver_version'
        found['card'] = subprocess.run(
            ['nvidia-smi', f'--query-gpu={query}', '--format=csv,noheader'], capture_output=True, text=True
        ).stdout.strip() or '-'
    found['commit'] = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True,
                                     text=True).stdout.strip() or '-'
    return found


def markdown(about: dict[str, str], rows: dict[str, list[dict]], toy: bool) -> str:
    """The page with a table for each section."""
    lines = [', '.join(f'{key} {value}' for key, value in about.items())]
    if toy:
        lines += ['', '**Toy sizes: these numbers mean nothing.**']
    for section, found in rows.items():
        keys = list(dict.fromkeys(key for row in found for key in row))
        lines += ['', f'## {TITLES[section]}', '', '| ' + ' | '.join(keys) + ' |', '|---' * len(keys) + '|']
        lines += ['| ' + ' | '.join(show(row.get(key, '')) for key in keys) + ' |' for row in found]
    return '\n'.join(lines) + '\n'


def show(value) -> str:
    """A cell: four digits of a number, and no line or column of its own for a text."""
    text = f'{value:.4g}' if isinstance(value, float) else str(value)
    return text.replace('|', '/').replace('\n', ' ')


def main() -> None:
    """Run the sections, print their rows and write the tables; exit with 1 if one has failed."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda', choices=['cpu', 'cuda'])
    parser.add_argument('--toy', action='store_true', help='tiny models, few steps, nothing compiled by '
                        'inductor: the code, not the speed')
    parser.add_argument('--batch-size', type=int, default=256, help='of ViT-B; half of it for ViT-L, and '
                        'twice as much for ViT-S')
    parser.add_argument('--minutes', type=float, default=9., help='for everything')
    parser.add_argument('--sections', nargs='+', choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument('--out', type=Path, required=True, help='folder for gpu.md and gpu.json')
    args = parser.parse_args()
    if args.toy:
        args.batch_size = 2
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('PyTorch finds no GPU: --device cpu --toy tries the code without one')
    end = START + 60 * args.minutes - 30  # which an overdue section may take to be killed
    args.start = 'fork'  # spares each section the imports
    if args.device == 'cuda':
        trial = multiprocessing.get_context('fork').Process(target=torch.cuda.init)
        trial.start()
        trial.join()
        args.start = 'spawn' if trial.exitcode else 'fork'
    args.out.mkdir(parents=True, exist_ok=True)
    about, rows = facts(args), {}
    with tempfile.TemporaryDirectory() as folder:
        args.images = Path(folder) / 'train'
        args.images.mkdir()
        dataloader.make_images(args.images, 16 if args.toy else 320)
        for number, section in enumerate(args.sections):
            later = sum(SECTIONS[name][1] for name in args.sections[number + 1:])
            limit = SECTIONS[section][1] or end - time.time() - later
            deadline = end if args.toy else min(time.time() + limit, end)
            rows[section] = []
            for row in rows_of(section, args, deadline):
                print(f'{section}:', ', '.join(f'{key} {show(value)}' for key, value in row.items()),
                      flush=True)
                rows[section].append(row)
                (args.out / 'gpu.md').write_text(markdown(about, rows, args.toy))
                (args.out / 'gpu.json').write_text(json.dumps(dict(about=about, rows=rows), indent=1))
    sys.exit(int(any('failed' in row for found in rows.values() for row in found)))


if __name__ == '__main__':
    main()
