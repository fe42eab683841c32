"""Shared fixtures of the test suite."""
from pathlib import Path

import pytest
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

import cae_mm  # noqa: F401  before the tests import mmcv.ops, which may need the operators of cae_mm.ops


def pytest_addoption(parser):
    parser.addoption('--golden', type=Path, metavar='DIR',
                     default=Path(__file__).parent / 'parity' / 'golden',
                     help='directory of the golden arrays of the official implementation')


@pytest.fixture(scope='session')
def golden(request):
    """The directory of the golden arrays, checked to exist."""
    directory = request.config.getoption('golden')
    if not (directory / 'manifest.json').is_file():
        raise pytest.UsageError(f'--golden {directory}: there is no manifest.json in it')
    return directory


@pytest.fixture(autouse=True)
def own_scope_and_logger():
    """A test leaves neither the default scope nor the logger of its runner to the next one."""
    yield
    for manager in (DefaultScope, MMLogger):
        manager._instance_dict.clear()
