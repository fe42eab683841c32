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
    """What a program prints in an interpreter that finds our package in this folder."""
    ran = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=folder, text=True,
                         capture_output=True, env={**os.environ, 'PYTHONPATH': str(path)})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_importing_needs_no_module_of_unix_no_hub_and_no_configs(tmp_path):
    shutil.copytree(ROOT / 'cae_mm', tmp_path / 'cae_mm',
                    ignore=shutil.ignore_patterns('__pycache__', '.mim'))
    code = ('import os, sys; del os.posix_fallocate;'
            'sys.modules.update(dict.fromkeys(["fcntl", "resource", "huggingface_hub", "transformers"]));'
            'import cae_mm, cae_mm.visualization, mmpretrain;'
            'print(cae_mm.__file__, len(mmpretrain.list_models("cae_vitb*")))')
    assert run(code, tmp_path, tmp_path) == f'{tmp_path / "cae_mm/__init__.py"} 0'


def test_importing_prints_nothing(tmp_path):
    """Neither do mmdet and mmseg then: VALUE=$(python -c ...) has the value alone."""
    assert run('import cae_mm, mmdet.datasets, mmseg.datasets', tmp_path, ROOT) == ''


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
            'import mmengine.hub; mmengine.hub.get_config(f"cae_mm::cls/{name}.py");'
            'print(cae_mm.__file__, ModelHub.get(name).config.filename, "matplotlib" in sys.modules,'
            'mmpretrain.get_model(name).backbone.embed_dims)')
    assert run(code, tmp_path, tmp_path / 'lib') == (
        f'{package / "__init__.py"} {package / ".mim/configs/cls/linear_cae_vits_90e.py"} False 384')
    ran = subprocess.run([sys.executable, tmp_path / 'lib/bin/cae-mm', 'configs', 'cls/linear_cae_vits'],
                         cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(tmp_path / 'lib')}, text=True,
                         capture_output=True, check=True)
    assert ran.stdout == f'{package}/.mim/configs/cls/linear_cae_vits_90e.py\n'


def test_a_wheel_changes_nothing_that_is_installed(wheel):
    plan = pip('install', '--dry-run', '--no-index', f'{wheel}[det,seg,dev]')
    assert re.findall('Would install (.*)', plan) in (['cae_mm-0.1.0'], [])


# What a stranger does in a folder without this repository: an encoder, and a tool out of the wheel.
STRANGER = """
import cae_mm, numpy, subprocess, sys, torch
from pathlib import Path
from PIL import Image
for i in range(8):
    folder = Path('data', ('train', 'val')[i % 2], ('cat', 'dog')[i // 4])
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numpy.full((64, 64, 3), 30 * i, numpy.uint8)).save(folder / f'{i}.png')
assert cae_mm.get_model('cae_vitt')(torch.zeros(2, 3, 224, 224))[0].shape == (2, 192)
command = Path(sys.executable).parent / 'cae-mm'
subprocess.run([command, 'knn', 'cae_vitt', 'none', '--data', 'data', '--k', '1', '--out', 'knn.json'],
               check=True)
"""


@pytest.mark.slow
def test_a_release_is_installed_from_nothing(tmp_path):
    """Builds sdist and wheel by make dist; needs an index of packages, and some minutes."""
    source, python, home = tmp_path / 'source', tmp_path / 'env/bin/python', tmp_path / 'home'
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns('.*', 'site', 'work_dirs', '*_out'))
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}

    def call(*command, cwd=tmp_path):
        subprocess.run(command, cwd=cwd, check=True, env={**environment, 'PYTHON': sys.executable})

    call('make', '-C', source, 'dist')
    [wheel], [sdist] = (source / 'dist').glob('*.whl'), (source / 'dist').glob('*.tar.gz')
    assert sdist.name == wheel.name.replace('-py3-none-any.whl', '.tar.gz')
    call(sys.executable, '-m', 'venv', python.parents[1])
    call(python, '-m', 'pip', 'install', '-q', wheel)
    call(python, '-m', 'pip', 'check')
    home.mkdir()
    call(python, '-W', 'ignore', '-c', STRANGER, cwd=home)
    assert (home / 'knn.json').is_file()
