"""What may be written behind --cfg-options, and what is said of the rest."""
import argparse
import copy
from functools import cache
from pathlib import Path

import pytest
from mmengine.config import Config
from options import add_config_options

from cae_mm.engine.overrides import apply_options
from tests.chaos.words import RIGHT, WRONG

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / 'configs').glob('[a-z]*/*.py'))


@cache
def read(config):
    return Config.fromfile(ROOT / config)


def apply(config, *options):
    """The config as --cfg-options change it."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_config_options(parser)
    cfg = copy.deepcopy(read(config))
    apply_options(cfg, parser.parse_args([config, '--cfg-options', *options]).cfg_options)
    return cfg


@pytest.mark.parametrize('config', WRONG)
def test_wrong_words_are_refused_in_a_line(config):
    accepted = []
    for option in WRONG[config]:
        try:
            apply(config, option)
            accepted.append(option)
        except ValueError as error:
            assert '\n' not in str(error) and option.split('=')[0].split('.')[-1] in str(error), option
    assert not accepted


@pytest.mark.parametrize('config', RIGHT)
def test_right_words_are_taken(config):
    for option in RIGHT[config]:
        apply(config, option)


def test_the_configs_of_this_project_are_in_range():
    assert len(CONFIGS) > 40
    for config in CONFIGS:
        apply(str(config.relative_to(ROOT)), 'work_dir=a')
