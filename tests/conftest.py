"""Shared fixtures of the test suite."""
import contextlib
import functools
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import sysconfig
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

import cae_mm  # noqa: F401  before the tests import mmcv.ops, which may need the operators of cae_mm.ops

# At the end: tools/test.py is not the standard library's.
sys.path.append(str(Path(__file__).parents[1] / 'tools'))

# In the background of a script, and under nohup, these are ignored, here and in all that tests start.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)


def pytest_addoption(parser):
    parser.addoption('--golden', type=Path, metavar='DIR',
                     default=Path(__file__).parent / 'parity' / 'golden',
                     help='directory of the golden arrays of the official implementation')


@functools.cache
def compiler_problem():
    """Why PyTorch cannot compile for this CPU: no C++ compiler, or one without OpenMP or Python.h."""
    command = [os.environ.get('CXX', 'g++'), '-fopenmp', '-fsyntax-only', '-x', 'c++',
               '-I' + sysconfig.get_path('include'), '-']
    try:
        subprocess.run(command, input=b'#include <omp.h>\n#include <Python.h>', check=True,
                       capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f'torch.compile needs a C++ compiler: {error}'


def pytest_collection_modifyitems(items):
    """The longest first: of two processes none is left with them at the end."""
    items.sort(key=lambda item: item.path.parent.name not in ('chaos', 'demo'))


def pytest_runtest_setup(item):
    if item.get_closest_marker('needs_compiler') and compiler_problem():
        pytest.skip(compiler_problem())


@pytest.fixture(scope='session')
def golden(request):
    """The directory of the golden arrays, checked to exist."""
    directory = request.config.getoption('golden')
    if not (directory / 'manifest.json').is_file():
        raise pytest.UsageError(f'--golden {directory}: there is no manifest.json in it')
    return directory


@pytest.fixture(scope='session')
def forget_runners():
    """A function for what mmengine keeps by a runner's name: two of one second share theirs."""
    def forget():
        for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
            manager._instance_dict.clear()
    return forget


@pytest.fixture(autouse=True)
def own_state(forget_runners):
    """A test leaves neither environment nor default scope nor the logger of its runner to the next one."""
    environment = dict(os.environ)
    forget_runners()  # a logger made while tests are collected writes to what no test captures
    yield
    os.environ |= environment
    for name in os.environ.keys() - environment.keys() - {'PYTEST_CURRENT_TEST'}:
        del os.environ[name]
    forget_runners()


@pytest.fixture(scope='session', autouse=True)
def workers_are_ended_soon():
    """Those of a loader that a garbage collection takes are not told: it waits 5 s for each otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', 0.5)
        yield


@pytest.fixture(scope='session', autouse=True)
def forks_can_compute_gradients():
    """The first backward pass starts a thread for each device, and fake tensors pretend to have a GPU.

    A process with such threads cannot fork for another backward pass: so the first one is before them.
    """
    torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(scope='session', autouse=True)
def own_cache(tmp_path_factory):
    """Lists of the files in folders are not kept in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture
def small_disk():
    """A context in which no file grows beyond some bytes, as on a disk that is full."""
    @contextlib.contextmanager
    def limit(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.fixture
def on_ranks(tmp_path):
    """A function that calls another one on n ranks, forked processes of a gloo group.

    It gives the results, or the exceptions, in the order of the ranks; of one that was killed the negative
    signal. A rank that waits in vain has the exception of a time-out.
    """
    context, runs = multiprocessing.get_context('fork'), []

    def work(function, rank, number, rendezvous, pipe):
        torch.set_num_threads(1)  # OpenMP's threads are not forked
        torch.distributed.init_process_group(
            'gloo', rank=rank, world_size=number, init_method=rendezvous, timeout=timedelta(seconds=30))
        try:
            result = function()
        except Exception as error:
            result = error
        pipe.send(result)
        pipe.recv()  # until the others have all that this process sent them
        os._exit(0)

    def run(number, function):
        runs.append(number)
        rendezvous = f'file://{tmp_path}/rendezvous{len(runs)}'
        ours, theirs = zip(*(context.Pipe() for _ in range(number)), strict=True)
        processes = [context.Process(target=work, args=(function, rank, number, rendezvous, theirs[rank]))
                     for rank in range(number)]
        for process in processes:
            process.start()
        try:
            ranks = [*zip(ours, processes, strict=True)]
            assert all(wait([pipe, process.sentinel], 100) for pipe, process in ranks), (
                'a rank did not come to an end')
            results = [pipe.recv() if pipe.poll() else process.join() or process.exitcode
                       for pipe, process in ranks]
            for pipe in ours:
                pipe.send(None)
        finally:
            for process in processes:
                process.join(5)
                process.kill()
        return results

    return run
