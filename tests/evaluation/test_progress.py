"""What a terminal and what a log shows of a long computation."""
import io
import sys

import pytest

from cae_mm.evaluation.progress import Progress


class Terminal(io.StringIO):
    """A terminal that remembers what was written."""

    def isatty(self):
        return True


def test_a_log_gets_whole_lines(capsys):
    progress = Progress('features of train', 300, 'images', interval=0)
    progress.update(100)
    progress.update(200)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith('features of train: 100 of 300 images, ')
    assert lines[0].endswith('/s, 0:00:00 left') and lines[1].endswith('in all')


@pytest.mark.parametrize('interval, lines', [(1e9, 1), (0, 5)])
def test_a_log_is_not_flooded(capsys, interval, lines):
    progress = Progress('k-NN', 5, 'images', interval=interval)
    for _ in range(5):
        progress.update()
    assert len(capsys.readouterr().out.splitlines()) == lines


def test_a_terminal_gets_one_line(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, 'stdout', terminal)
    progress = Progress('k-NN', 4, 'images')
    progress.due = 0
    progress.update(2)
    progress.update(2)
    shown = terminal.getvalue()
    assert shown.startswith(f'\r[{"#" * 10}{" " * 10}] k-NN: 2 of 4')
    assert shown.count('\r') == 2 and shown.count('\n') == 1 and shown.endswith('\n')


def test_nothing_when_not_asked(capsys):
    Progress('k-NN', 1, 'images', show=False).update()
    assert capsys.readouterr().out == ''
