"""The commands in README, docs and configs fit their configs; the tutorials, and one of each kind, run."""
import argparse
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from cae_mm.checkpoint.facts import facts_of
from cae_mm.engine import launch, overrides
from cae_mm.evaluation import protocol
from cae_mm.models import vit
from demo import make_demo_data as demo
from tests import toy

from .conftest import ROOT

CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / 'configs').glob('[!_]*/**/*.py')
                 if path.parent.name != 'benchmark')
PAGES = ['README.md', *(f'docs/{path.name}' for path in sorted((ROOT / 'docs').glob('*.md')))]
TUTORIALS = ['docs/start.md', *(page for page in PAGES if page.startswith('docs/tutorial_'))]
# What stands for the reader's own in the pages, and what it is here: DIR has every layout of data.
PLACEHOLDERS = {
    'COCO': 'DIR', 'ADE': 'DIR', 'MY_IMAGES': 'DIR/train/cat',
    'PICTURES': 'DIR/val/cat', 'CHECKPOINT': 'CKPT', 'PATH': 'CKPT', 'OUT': 'out.pth',
    'TRAINED': 'work_dirs/mask_rcnn_cae_vitb_1x_coco/epoch_12.pth',
    'work_dirs/.../': 'work_dirs/mask_rcnn_cae_vitb_1x_coco/'}
A_CONFIG = {'demo_image.py': 'configs/det/mask_rcnn_cae_vitb_1x_coco.py',
            'reconstruct.py': 'configs/pretrain/cae_vitb_300e_pixels.py'}
CKPT = 'cae_vitb_300e_pixels'
COMMANDS = {path.stem.replace('_', '-'): f'tools/{path.name}' for path in (ROOT / 'tools').iterdir()}
# In place of 8 GPUs so many processes; and in place of days two steps of small pictures.
PROCESSES = '2'
SHORT = {
    'tokenizer': {'train_cfg.max_epochs': 1, 'param_scheduler.warmup_epochs': 0},
    'pretrain': {'train_cfg.max_epochs': 1, 'param_scheduler.warmup_epochs': 0},
    'cls': {'num_classes': 2, 'val_evaluator.topk': 1, 'train_cfg.max_epochs': 1,
            'param_scheduler.warmup_epochs': 0},
    'det': {'classes': demo.CLASSES, 'train_scales': [(96, 64)], 'crop_scales': [(128, 90)],
            'crop_size': (50, 80), 'test_scale': (96, 64), 'train_cfg.max_epochs': 1},
    'seg': {'classes': ['background', *demo.CLASSES], 'crop_size': (64, 64), 'test_scale': (96, 64),
            'train_cfg.max_iters': 2, 'param_scheduler.0.end': 3, 'train_cfg.val_interval': 2,
            'default_hooks.checkpoint.interval': 2}}


def shell_lines(page):
    """The shell's lines in a page: of its bash blocks, and in backticks; or of a config's head."""
    text = (ROOT / page).read_text()
    if page.endswith('.py'):
        yield from re.findall(r'^#   ((?:.*\\\n# *)*.*)', text, re.M)
    for block in re.findall(r'^```bash\n(.*?)^```', text, re.M | re.S):
        values = dict(re.findall(r'^(\w+)=(\S+)', block, re.M))
        block = re.sub(r'\$(\w+)', lambda name, values=values: values[name[1]], block)
        yield from block.replace('\\\n', ' ').splitlines()
    yield from re.findall(r'`((?:python |tools/|make |cae-mm )[^`]+)`', text)


def commands(pages):
    """Tools and their arguments as the pages have them, but for what the tables above replace."""
    for line in (line for page in pages for line in shell_lines(page)):
        words = shlex.split(re.sub(r'\\\n# *', '', line), comments=True)
        if words[:1] == ['python']:
            del words[0]
        if words[:1] == ['cae-mm']:
            words = [COMMANDS.get(words[1], ''), *(
                f'configs/{word}' if (ROOT / 'configs' / word).is_file() else word for word in words[2:])]
        if len(words) < 2 or not words[0].startswith('tools/') or '...' in words:
            continue
        tool, *words = words
        words = [A_CONFIG[Path(tool).name] if word == 'CONFIG' else word for word in words]
        for name, own in PLACEHOLDERS.items():
            words = [re.sub(rf'(?<![\w/]){re.escape(name)}(?!\w)', own, word) for word in words]
        yield Path(tool).name, tuple(PROCESSES if word == '8' else word for word in words)


def alone(tool, words):
    """The tool that a shell script starts several times, and its arguments."""
    if tool.endswith('.py'):
        return tool, words
    place = {'dist_run.sh': 1, 'dist_train.sh': 1, 'dist_test.sh': 2}[tool]
    assert words[place] == PROCESSES
    words = words[:place] + words[place + 1:]
    if tool == 'dist_run.sh':
        return Path(words[0]).name, words[1:]
    return tool.removeprefix('dist_').replace('.sh', '.py'), words


def first_of_each_kind():
    """The first command of each tool with each kind of config, and with a model's name."""
    chosen = {}
    for tool, words in commands(PAGES):
        if tool == 'benchmark.py':  # see test_benchmark
            continue
        kind = next((Path(word).parts[1] for word in words if word.startswith('configs/')), '')
        chosen.setdefault((alone(tool, words)[0], kind), (tool, words))
    return list(chosen.values())


EVERY = sorted({alone(*command) for command in commands([*PAGES, *map(str, CONFIGS)])})


def name_of(value):
    return value if isinstance(value, str) else ' '.join(value)


@pytest.fixture(scope='session')
def data(scenes, tmp_path_factory):
    """A directory in ImageNet's, COCO's and ADE20K's layout."""
    root, rng = tmp_path_factory.mktemp('data'), np.random.default_rng(0)
    for split, number in (('train', 12), ('val', 4)):
        for i in range(2 * number):
            folder = root / split / ('cat', 'dog')[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (80, 96, 3), np.uint8)).save(folder / f'{i}.jpg')
    for layout in ('coco', 'ade'):
        shutil.copytree(scenes / layout, root, dirs_exist_ok=True)
    (root / 'classes.json').write_text(json.dumps((root / 'classes.txt').read_text().split()))
    return root


@pytest.fixture
def here(tmp_path, data, scenes, monkeypatch):
    """The working directory, with the reader's data."""
    (tmp_path / 'DIR').symlink_to(data)
    (tmp_path / 'demo_out').mkdir()
    (tmp_path / 'demo_out/data').symlink_to(scenes)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Config, 'pretty_text', '')  # logging it takes longer than the training
    return tmp_path


class Parsed(Exception):
    """Ends a tool after its command line was parsed."""


def parse(tool, words, monkeypatch):
    """What a tool makes of its command line."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(self, *args):
        raise Parsed(parse_args(self, *args))

    with monkeypatch.context() as patch, pytest.raises(Parsed) as parsed:
        patch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        patch.setattr(sys, 'argv', [tool, *words])
        runpy.run_path(str(ROOT / 'tools' / tool))['main']()
    return parsed.value.args[0]


def leaves(node, path=''):
    """The values of a config by their dotted names."""
    if not isinstance(node, (dict, list)):
        return {path[1:]: node}
    found = {}
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        found |= leaves(value, f'{path}.{key}')
    return found


@pytest.mark.parametrize('tool, words', EVERY, ids=name_of)
def test_every_option_of_a_command_changes_its_config(tool, words, here, monkeypatch):
    (here / 'configs').symlink_to(ROOT / 'configs')
    args = parse(tool, words, monkeypatch)
    load = launch.load_config if 'data_root' in args else protocol.read_config

    def config(**changes):
        cfg = load(Namespace(**{**vars(args), **changes})) if 'config' in args else None
        if not isinstance(cfg, Config):
            return {}
        cfg.pop('changes', None)  # what the log says of the others
        return leaves(cfg.to_dict())

    whole, options = config(), vars(args).get('cfg_options') or {}
    less = {key: dict(cfg_options={k: v for k, v in options.items() if k != key}) for key in options}
    less |= {key: {key: None} for key in ('data_root', 'pretrained') if vars(args).get(key)}
    for key, change in less.items():
        try:
            without = config(**change)  # a key that nothing reads was refused with the whole
        except ValueError as error:  # others hang on it, as cache_dir on shards
            assert 'changes nothing' in str(error)
            continue
        changed = {name for name in whole | without if whole.get(name) != without.get(name)}
        # A short name is to reach its places; one that repeats the config's own value has done so, and
        # load_from is read where it stands, by the Runner.
        value, short = options.get(key, vars(args).get(key)), '.' not in key and key != 'load_from'
        assert without.get(key) == value or changed - ({key} if short else set()), key


def write_toy_config(path):
    """Write a small copy of a config under its own path."""
    settings = Namespace(config=str(ROOT / path), data_root=None, work_dir=None, launcher='none',
                         cfg_options=dict(SHORT[Path(path).parts[1]]))
    cfg = launch.load_config(settings)
    toy.shrink(cfg)
    if cfg.model.get('target_generator', {}).get('type') == 'DALLETokenizer':  # its weights are far away
        cfg.model.target_generator.update(init_cfg=None, allow_random=True)
    cfg.optim_wrapper.pop('accumulative_counts', None)
    for loader in filter(None, map(cfg.get, overrides.LOADERS)):
        loader.update(batch_size=min(loader.batch_size, 8), num_workers=0, persistent_workers=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    content = {key: value for key, value in cfg.to_dict().items() if key not in ('work_dir', 'launcher')}
    Path(path).write_text('\n'.join(f'{key} = {value!r}' for key, value in content.items()))


def write_checkpoint(path):
    """Write the weights of the toy model that a checkpoint is named after."""
    name = {'CKPT': CKPT, 'demo_out': 'cae_vitt_demo'}.get(Path(path).parts[0], Path(path).parent.name)
    [config] = (config for config in CONFIGS if config.stem == name)
    write_toy_config(str(config))
    cfg = Config.fromfile(config)
    if 'tokenizer' in cfg:
        cfg.model.target_generator.update(init_cfg=None, allow_random=True)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    meta = dict(dataset_meta=dict(classes=cfg.classes)) if cfg.get('classes') else {}
    torch.save(dict(state_dict=model.state_dict(), meta=dict(meta, cae_mm=facts_of(model))), path)


@pytest.mark.parametrize('tool, words', dict.fromkeys([*first_of_each_kind(), *commands(TUTORIALS)]),
                         ids=name_of)
def test_commands_run(tool, words, here, call_tool, run_tool, monkeypatch):
    monkeypatch.setitem(vit.ARCHITECTURES, 'base', tuple(toy.ARCH.values()))  # of models by name
    long = r'^(train_cfg\.\w+|batch_size|param_scheduler\.0\.end)=\d+'
    words = [re.sub(long, r'\1=2', word) for word in words]
    for word in words:
        if word.startswith('configs/'):
            write_toy_config(word)
            if (tokenizer := Config.fromfile(word).get('tokenizer', '')).startswith('work_dirs/'):
                write_checkpoint(tokenizer)
    for path in re.findall(r'(?:CKPT|\w+/\S+\.pth)\b', ' '.join(words)):
        write_checkpoint(path)
    if (tool, Path(words[0]).parent.name) == ('dist_test.sh', 'det'):  # other tests start dist_train.sh
        ended = run_tool(tool, *words)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    else:
        tool, words = alone(tool, words)
        call_tool(tool, *words)
    if tool == 'train.py':
        assert list(here.glob('work_dirs/*/last_checkpoint'))
    if '--out' in words:
        assert Path(words[words.index('--out') + 1]).exists()


def test_at_384_pixels_after_224(here, call_tool):
    name = 'finetune_cae_vitb_384_30e'
    write_checkpoint('work_dirs/finetune_cae_vitb_100e/epoch_100.pth')
    write_toy_config(f'configs/cls/{name}.py')
    for tool, words in commands(['docs/classification.md']):
        if '384' in ' '.join(words):
            tool, words = alone(tool, words)
            call_tool(tool, *words)
    [trained] = here.glob(f'work_dirs/{name}/epoch_*.pth')
    state = torch.load(trained)['state_dict']
    [(rows, _), *others] = [value.shape for key, value in state.items() if key.endswith('bias_table')]
    assert rows == 47 ** 2 + 3 and len(others) == 3 and state['backbone.pos_embed'].shape[1] == 1 + 24 ** 2


def test_checkpoints_are_called_as_the_trainings_end():
    ends = {}
    runs = [(Config.fromfile(ROOT / path), f'work_dirs/{path.stem}') for path in CONFIGS]
    for _, words in EVERY:
        if '--work-dir' in words:
            cfg = Config.fromfile(ROOT / words[0])
            cfg.merge_from_dict({key: int(value) for key, value in re.findall(
                r'(train_cfg\.max_\w+)=(\d+)', ' '.join(words))})
            runs.append((cfg, words[words.index('--work-dir') + 1]))
    for cfg, folder in runs:
        length = cfg.get('train_cfg', {})
        unit = 'epoch' if 'max_epochs' in length else 'iter'
        ends[folder] = f'{unit}_{length[f"max_{unit}s"]}.pth'
    named = set()
    for page in [*PAGES, *map(str, CONFIGS)]:
        named |= set(re.findall(r'(work_dirs/\w+)/(\w+\.pth)', (ROOT / page).read_text()))
    assert len(named) > 10
    assert {(folder, name) for folder, name in named if ends.get(folder) != name} == set()


@pytest.mark.parametrize('command', sorted({line for page in PAGES for line in shell_lines(page)
                                            if line.startswith('make ')}))
def test_targets_of_make_are_there(command):
    subprocess.run(['make', '-n', *shlex.split(command, comments=True)[1:]], cwd=ROOT, check=True,
                   capture_output=True)
