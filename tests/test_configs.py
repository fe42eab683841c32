"""Our configs by name, from anywhere."""
import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from cae_mm.configs import ROOT, find_config

NAME = 'pretrain/cae_vitb_800e.py'


@pytest.mark.parametrize('name', [NAME, f'configs/{NAME}', f'cae_mm::{NAME}', ROOT / 'configs' / NAME])
def test_found(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == ROOT / 'configs' / NAME


def test_what_is_here_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'pretrain').mkdir()
    (tmp_path / NAME).touch()
    assert (tmp_path / find_config(NAME)).samefile(tmp_path / NAME)


def test_the_nearest_is_named():
    with pytest.raises(FileNotFoundError, match='vitb_800.py, do you mean pretrain/cae_vitb_'):
        find_config('pretrain/cae_vitb_800.py')
    with pytest.raises(FileNotFoundError, match='there is no config b.py$'):
        find_config('b.py')


@pytest.mark.parametrize('name, key', [(NAME, 'model'), ('_base_/default_runtime.py', 'default_hooks')])
def test_mmengine_knows_them(name, key, tmp_path):
    """As those of OpenMMLab: mmengine's own functions, and a config of somebody else."""
    (tmp_path / 'own.py').write_text(f"_base_ = 'cae_mm::{name}'\nwork_dir = 'here'")
    own = Config.fromfile(tmp_path / 'own.py')
    assert own.work_dir == 'here' and own[key] == get_config(f'cae_mm::{name}')[key]
