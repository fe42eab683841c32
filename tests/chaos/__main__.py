"""python -m tests.chaos [PART=CASES ...]: run the cases, print what they found, fail with any failure."""
import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path

# Before PyTorch: no process here has a second thread, so that forks are safe.
os.environ.update(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')

from mmengine.config import Config  # noqa: E402

from . import report, toys  # noqa: E402

# What the children would import, the first of them again and again.
WARM = ('cae_mm', 'mmpretrain.models', 'mmdet.models', 'mmdet.datasets', 'mmseg.models', 'mmseg.datasets',
        'cae_mm.evaluation.protocol', 'cae_mm.visualization')

# Cases of the long run.
PARTS = dict(kills=650, checkpoints=2000, images=500, options=300, disk=100)
BASE, CONTEXTS = None, {}


def run(part: str, number: int) -> dict:
    """Run one case, in a process of the pool."""
    case = report.Case(part, number)
    try:
        import_module(f'tests.chaos.{part}').run_case(case, BASE, CONTEXTS[part])
    except Exception as error:
        case.check(False, f'the case itself failed: {type(error).__name__}: {error}')
    return case.close()


def main() -> None:
    """Run what the command line says."""
    global BASE
    parser = argparse.ArgumentParser(prog='python -m tests.chaos', description=__doc__)
    parser.add_argument('parts', nargs='*', metavar='PART=CASES',
                        default=os.environ.get('CAE_MM_CHAOS', '').split(),
                        help=f'default: {" ".join(f"{name}={number}" for name, number in PARTS.items())}')
    parser.add_argument('--case', type=int, help='this case alone')
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='cases at a time')
    parser.add_argument('--out', type=Path, help='JSON file to write')
    parser.add_argument('--width', type=int, default=400, help='of a printed failure')
    parser.add_argument('--page', type=Path, help='write the counts of this JSON file into the docs')
    args = parser.parse_args()
    if args.page:
        return report.write_page(args.page)
    chosen = {name: int(number or PARTS[name]) for name, _, number in (
        part.partition('=') for part in args.parts)} or PARTS
    cases = [(name, i) for name, number in chosen.items() for i in (
        range(number) if args.case is None else [args.case])]

    start = time.monotonic()
    for name in WARM:
        import_module(name)
    Config.pretty_text = ''  # logging it takes longer than the toys' training
    scratch = Path(tempfile.mkdtemp(prefix='chaos-')).resolve()
    tempfile.tempdir, BASE = str(scratch), toys.make(scratch)
    for name in chosen:
        CONTEXTS[name] = import_module(f'tests.chaos.{name}').prepare(BASE)
    found, context = [], multiprocessing.get_context('fork')
    try:
        with ProcessPoolExecutor(args.jobs, context) as pool:
            for case in pool.map(run, *zip(*cases, strict=True)):
                found.append(case)
                for failure in case['failures']:
                    name = f'{case["part"]} --case {case["case"]} ({case["kind"]})'
                    print(f'{name}: {failure[:args.width]}', flush=True)
                if len(found) % 50 == 0:
                    seconds = time.monotonic() - start
                    print(f'{len(found)} of {len(cases)} cases, {seconds:.0f} s', flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    result = report.summary(found, args.jobs, time.monotonic() - start)
    print(report.table(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))
    sys.exit(1 if result['failures'] else 0)


if __name__ == '__main__':
    main()
