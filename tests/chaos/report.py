"""What cases found, counted: as JSON, as a table, and in docs/reliability.md."""
import json
import os
import platform
import shutil
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from textwrap import fill

import numpy as np

from .children import Ended

SEED = 10
PAGE = Path(__file__).parents[2] / 'docs/reliability.md'
MARKS = '<!-- counts: written by python -m tests.chaos --page FILE -->', '<!-- end of counts -->'


class Case:
    """One case: its random numbers, its folder, and what it found."""

    def __init__(self, part: str, number: int):
        self.part, self.number, self.kind = part, number, ''
        self.rng = np.random.default_rng([SEED, sum(map(ord, part)), number])
        self.counts, self.failures, self.peak, self.slowest = Counter(), [], 0, 0.
        self.start = time.monotonic()
        self.folder = Path(tempfile.mkdtemp(prefix=f'{part}-{number}-')).resolve()

    def count(self, *names: str) -> None:
        """Count a happening under its name and, when there are several, under each finer one."""
        for i in range(len(names)):
            self.counts[': '.join(names[:i + 1])] += 1

    def check(self, holds: bool, problem: str) -> None:
        """Note a failure when something does not hold."""
        if not holds:
            self.failures.append(problem)

    def harm(self, ended: Ended) -> None:
        """Note what a child did that none may do."""
        self.failures += ended.harm()
        self.peak, self.slowest = max(self.peak, ended.peak), max(self.slowest, ended.seconds)

    def close(self) -> dict:
        """Remove the folder; return what was found."""
        shutil.rmtree(self.folder, ignore_errors=True)
        return dict(part=self.part, case=self.number, kind=self.kind, counts=self.counts,
                    failures=self.failures, peak=self.peak, slowest=self.slowest,
                    seconds=time.monotonic() - self.start)


def summary(found: list[dict], jobs: int, seconds: float) -> dict:
    """All cases together."""
    parts = {}
    for case in found:
        part = parts.setdefault(case['part'], dict(
            cases=0, failed=0, seconds=0, slowest=0, peak=0, kinds=Counter(), counts=Counter()))
        part['cases'] += 1
        part['failed'] += bool(case['failures'])
        part['seconds'] += case['seconds']
        part['kinds'][case['kind']] += 1
        part['counts'].update(case['counts'])
        for name in ('slowest', 'peak'):
            part[name] = max(part[name], case[name])
    with open('/proc/cpuinfo') as file:
        cpu = next((line.split(':')[1].strip() for line in file if line.startswith('model name')), '')
    return dict(
        date=time.strftime('%Y-%m-%d'), seconds=round(seconds), jobs=jobs, seed=SEED,
        hardware=f'{os.cpu_count()} cores, {cpu or platform.machine()}', python=platform.python_version(),
        versions={name: version(name) for name in (
            'torch', 'onedl-mmengine', 'onedl-mmpretrain', 'numpy', 'pillow', 'safetensors')},
        parts=parts, failures=[case for case in found if case['failures']])


def table(found: dict) -> str:
    """The counts of a summary as Markdown."""
    versions = ', '.join(f'{name} {number}' for name, number in found['versions'].items())
    lines = [f'Run of {found["date"]}: seed {found["seed"]}, {found["seconds"] / 60:.0f} minutes with '
             f'{found["jobs"]} at a time on {found["hardware"]}; Python {found["python"]}, {versions}.', '',
             '| part | cases | failed | slowest child | largest child | seconds per case |',
             '|---|---|---|---|---|---|']
    for name, part in found['parts'].items():
        lines.append(f'| {name} | {part["cases"]:,} | {part["failed"]} | {part["slowest"]:.1f} s | '
                     f'{part["peak"] / 2**30:.2f} GB | {part["seconds"] / part["cases"]:.2f} |')
    for name, part in found['parts'].items():
        for what in ('kinds', 'counts'):
            counts = [f'{key} {number:,}' for key, number in sorted(part[what].items())]
            totals = [text for text in counts if ':' not in text]
            lines += ['', f'{name}, {what}: {"; ".join(totals)}.'] if totals else []
            if len(totals) < len(counts):
                detail = '; '.join(text for text in counts if ':' in text)
                lines += ['', f'<details><summary>{name}, {what} in detail</summary>', '', f'{detail}.', '',
                          '</details>']
    return '\n'.join(line if line.startswith('|') else fill(line, 158, break_on_hyphens=False)
                     for line in lines)


def write_page(path: Path) -> None:
    """Put the counts of a run's JSON file into docs/reliability.md."""
    before, rest = PAGE.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    content = table(json.loads(path.read_text()))
    PAGE.write_text(f'{before}{MARKS[0]}\n{content}\n{MARKS[1]}{after}')
