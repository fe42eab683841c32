"""The package on other systems than it is tested on, and away from its repository."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(code, folder, path):
    """The last line that a program prints in an interpreter that finds our package in this folder."""
    ran = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=folder, text=True,
                         capture_output=True, env={**os.environ, 'PYTHONPATH': str(path)})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split('\n')[-2]


def test_importing_needs_no_module_of_unix_and_no_configs(tmp_path):
    shutil.copytree(ROOT / 'cae_mm', tmp_path / 'cae_mm', ignore=shutil.ignore_patterns('__pycache__'))
    code = ('import os, sys; sys.modules.update(fcntl=None, resource=None); del os.posix_fallocate;'
            'import cae_mm, cae_mm.visualization, mmpretrain;'
            'print(cae_mm.__file__, len(mmpretrain.list_models("cae_vitb*")))')
    assert run(code, tmp_path, tmp_path) == f'{tmp_path / "cae_mm/__init__.py"} 0'


def pip(*arguments):
    ran = subprocess.run([sys.executable, '-m', 'pip', '--disable-pip-version-check', *map(str, arguments)],
                         text=True, capture_output=True, env={**os.environ, 'PIP_CONFIG_FILE': os.devnull})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp('source')
    for path in ROOT.glob('[!.]*'):
        if path.is_file():
            shutil.copy(path, source)
    for name in 'cae_mm', 'configs', 'tools':
        shutil.copytree(ROOT / name, source / name)
    pip('wheel', '-q', '--no-deps', '--no-build-isolation', '--no-index', '-w', source, source)
    return next(source.glob('*.whl'))


def test_a_wheel_brings_its_configs(wheel, tmp_path):
    """Also: importing needs neither mmdet nor mmseg, and loads no figures."""
    pip('install', '-q', '--no-deps', '--no-index', '--target', tmp_path / 'lib', wheel)
    package = tmp_path / 'lib/cae_mm'
    # None: importing it fails. mmpretrain itself imports mmdet where it can.
    code = ('import sys; sys.modules.update(mmdet=None, mmseg=None); import cae_mm, mmpretrain;'
            'from mmpretrain.apis.model import ModelHub; name = "linear_cae_vits_90e";'
            'print(cae_mm.__file__, ModelHub.get(name).config.filename, "matplotlib" in sys.modules,'
            'mmpretrain.get_model(name).backbone.embed_dims)')
    assert run(code, tmp_path, tmp_path / 'lib') == (
        f'{package / "__init__.py"} {package / ".mim/configs/cls/linear_cae_vits_90e.py"} False 384')
    assert (package / '.mim/tools/train.py').is_file()


def test_a_wheel_changes_nothing_that_is_installed(wheel):
    plan = pip('install', '--dry-run', '--no-index', f'{wheel}[det,seg,dev]')
    assert re.findall('Would install (.*)', plan) in (['cae_mm-0.1.0'], [])
