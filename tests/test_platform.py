"""The package on other systems than it is tested on, and away from its repository."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(code, folder, path):
    """The last line that a program prints in an interpreter that finds our package in this folder."""
    ran = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=folder, text=True,
                         capture_output=True, env={**os.environ, 'PYTHONPATH': str(path)})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split('\n')[-2]


def test_importing_needs_no_module_of_unix(tmp_path):
    code = ('import os, sys; sys.modules.update(fcntl=None, resource=None); del os.posix_fallocate;'
            'import cae_mm, cae_mm.visualization; print(cae_mm.__file__)')
    assert run(code, tmp_path, ROOT) == str(ROOT / 'cae_mm/__init__.py')


def test_importing_needs_no_configs(tmp_path):
    shutil.copytree(ROOT / 'cae_mm', tmp_path / 'cae_mm', ignore=shutil.ignore_patterns('__pycache__'))
    code = ('import cae_mm, mmpretrain; print(cae_mm.__file__, len(mmpretrain.list_models("cae_vitb*")),'
            'cae_mm.get_model("cae_deits").embed_dims)')
    assert run(code, tmp_path, tmp_path) == f'{tmp_path / "cae_mm/__init__.py"} 0 384'
