"""From a command line to a config that fits the data and the machine."""
import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from options import add_config_options

from cae_mm.engine import launch, literals, overrides
from tests.chaos.words import PRETRAIN, SEGMENT

CONFIG = """
data_root = 'data/birds/'
model = dict(type='A', target_generator=dict(type='DALLETokenizer'), norm=dict(type='SyncBN'),
             backbone=dict(type='CAEViT'), head=dict(num_classes=5))
data_preprocessor = dict(num_classes=5)
train_dataloader = dict(
    num_workers=2, persistent_workers=True, prefetch_factor=4, pin_memory=True,
    dataset=dict(type='ReproducibleDataset', dataset=dict(
        data_root='data/birds/', ann_file='data/birds/list.txt', data_prefix='train')))
val_dataloader = dict(dataset=dict(data_root='data/other'))
val_evaluator = [dict(ann_file='data/birds/val.json')]
custom_hooks = [dict(data_root='data/birds')]
"""


@pytest.fixture
def load(tmp_path):
    config = tmp_path / 'bird.py'
    config.write_text(CONFIG)

    def load(*options):
        parser = argparse.ArgumentParser()
        add_config_options(parser)
        return launch.load_config(parser.parse_args([str(config), *options]))

    return load


@pytest.mark.parametrize('options', [['--data-root', '/new'], ['--cfg-options', 'data_root=/new']])
def test_data_root_is_moved_everywhere(load, options):
    cfg = load(*options)
    dataset = cfg.train_dataloader.dataset.dataset
    assert (dataset.data_root, dataset.ann_file, dataset.data_prefix) == (
        '/new', '/new/list.txt', 'train')
    assert cfg.val_evaluator[0].ann_file == '/new/val.json'
    assert cfg.custom_hooks[0].data_root == '/new'
    assert cfg.val_dataloader.dataset.data_root == 'data/other'
    assert cfg.data_root == '/new'


@pytest.mark.parametrize('root', ['data/birds', 'data/birds/'])
def test_the_data_root_of_the_config_itself(load, root):
    for options in (['--data-root', root], ['--cfg-options', f'data_root={root}']):
        cfg = load(*options)
        assert cfg.to_dict() == load().to_dict() and cfg.changes == []


def test_shards_take_the_place_of_the_folder():
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    options = ['configs/pretrain/cae_vitt_eurosat.py', '--cfg-options', 'window=4', 'cache_dir=/d']
    for places in ('s3://a/b', '[s3://a/b,/c]'):
        cfg = launch.load_config(parser.parse_args([*options, f'shards={places}']))
        data = cfg.train_dataloader.dataset.dataset
        found = data.get('datasets') or [data]
        assert [part.data_root for part in found] == ['s3://a/b', '/c'][:len(found)] and len(found) == (
            places.count(',') + 1)
        assert all(part.type == 'ShardedImages' and not part.with_label and part.pipeline for part in found)
        assert {part.cache_dir for part in found} == {'/d'}
        assert cfg.train_dataloader.sampler.window == 4 and cfg.data_root == 'data/eurosat'
    for config, option in ((SEGMENT, 'shards=/c'), (PRETRAIN, 'cache_dir=/c')):
        with pytest.raises(ValueError, match=f'{option} changes nothing'):
            launch.load_config(parser.parse_args([config, '--cfg-options', option]))


def test_changes_are_counted_by_place(load, load_dense):
    cfg = load('--data-root', '/new', '--cfg-options', 'num_classes=10', 'crop_size=(96,48)')
    assert cfg.changes == [
        'data_root=/new: 4 places (train_dataloader, test_dataloader, test_evaluator)',
        'num_classes=10: 2 places (model)', 'crop_size=(96, 48): 2 places (train_dataloader, model)']
    assert load().changes == []


@pytest.mark.parametrize('option, message', [
    ('data_prefix=', "data_prefix= changes nothing: .*bird.py has no data_prefix"),
    ('crop_size=(64,64)', 'has no crop_size'),
    ('tokenizer=a.pth', 'tokenizer=a.pth changes nothing: .*has no tokenizer'),
    ('pretrained=a.pth', 'has no pretrained'), ('num_classes=7', 'uses its num_classes=5 nowhere'),
    ('data_root=/new', 'uses its data_root=data/birds nowhere')])
def test_an_option_that_changes_nothing_is_refused(load, tmp_path, option, message):
    (tmp_path / 'bird.py').write_text("data_root = 'data/birds'\nnum_classes = 5\nmodel = dict(type='A')\n")
    with pytest.raises(ValueError, match=message):
        load('--cfg-options', option)


def test_several_folders(load):
    several = ['--data-root', '/a', '--data-root', '/b', '--cfg-options']
    with pytest.raises(ValueError, match='ann_file=data/birds/list.txt needs a folder of its own'):
        load(*several, 'custom_hooks=[]')
    dataset = 'train_dataloader.dataset.dataset.ann_file='
    with pytest.raises(ValueError, match="data_root=data/birds needs a folder"):
        load(*several, dataset, 'val_evaluator=[]')
    cfg = load(*several, dataset, 'val_evaluator=[]', 'custom_hooks=[]')
    assert cfg.changes == ["data_root=['/a', '/b']: 1 place (train_dataloader)"]
    inner = cfg.train_dataloader.dataset.dataset
    assert (inner.type, [part.data_root for part in inner.datasets]) == ('ConcatDataset', ['/a', '/b'])
    assert inner.datasets[1].data_prefix == 'train'


def test_data_root_of_a_config_without_one():
    cfg = Config(dict(train_dataloader=dict(dataset=dict(data_root='a', ann_file='a/b'))))
    overrides.apply_options(cfg, dict(data_root='/new'))
    assert cfg.train_dataloader.dataset == dict(data_root='/new', ann_file='a/b')


def test_nothing_moves_by_itself(load):
    assert load().train_dataloader.dataset.dataset.data_root == 'data/birds/'


def test_tokenizer(load):
    assert 'init_cfg' not in load().model.target_generator
    cfg = load('--cfg-options', 'tokenizer=dvae.pth')
    assert cfg.model.target_generator.init_cfg == dict(type='PretrainedTokenizer', checkpoint='dvae.pth')


def test_pretrained(load):
    assert 'init_cfg' not in load().model.backbone
    expected = dict(type='Pretrained', checkpoint='a.pth', prefix='backbone.')
    assert load('--cfg-options', 'pretrained=a.pth').model.backbone.init_cfg == expected
    assert load('--cfg-options', 'pretrained=none').model.backbone.init_cfg is None
    more = load('--cfg-options', 'pretrained=a.pth', 'model.backbone.init_cfg.resize_rel_pos=True')
    assert more.model.backbone.init_cfg == dict(expected, resize_rel_pos=True)


def test_num_classes(load):
    cfg = load('--cfg-options', 'num_classes=10')
    assert (cfg.model.head.num_classes, cfg.data_preprocessor.num_classes) == (10, 10)
    assert load().model.head.num_classes == 5


DENSE = """
data_root = 'data/coco'
num_classes = 80
classes = None
crop_size = (64, 64)
model = dict(
    type='TTA', test_cfg=dict(crop_size=crop_size, stride=(42, 42)), module=dict(
        backbone=dict(type='CAEViT', init_cfg=dict(resize_rel_pos=True)), rpn_head=dict(num_classes=1),
        roi_head=dict(bbox_head=[dict(num_classes=num_classes), dict(num_classes=num_classes)])))
train_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(
    type='CocoDataset', data_root=data_root, ann_file='annotations/train.json',
    pipeline=[dict(crop_size=crop_size, other=(64, 32))])))
test_dataloader = dict(dataset=dict(type='ConcatDataset', datasets=[
    dict(type='mmseg.ADE20KDataset', data_root=data_root, metainfo=dict(name='a')),
    dict(type='CocoDataset', data_root=data_root)]))
test_evaluator = dict(type='CocoMetric', ann_file=data_root + '/annotations/val.json')
"""


@pytest.fixture
def load_dense(load, tmp_path):
    (tmp_path / 'bird.py').write_text(DENSE)
    return load


def test_a_dense_model_takes_number_and_checkpoint(load_dense):
    cfg = load_dense('--data-root', '/new', '--cfg-options', 'num_classes=3', 'pretrained=a.pth')
    inner = cfg.model.module
    assert [head.num_classes for head in inner.roi_head.bbox_head] == [3, 3]
    assert inner.rpn_head.num_classes == 1
    assert inner.backbone.init_cfg == dict(
        type='Pretrained', checkpoint='a.pth', prefix='backbone.', resize_rel_pos=True)
    data = cfg.train_dataloader.dataset.dataset
    assert (data.data_root, data.ann_file) == ('/new', 'annotations/train.json')
    assert cfg.test_evaluator.ann_file == '/new/annotations/val.json'
    assert 'metainfo' not in data


CLASSES = {
    'names.txt': 'traffic light\nVélo\n', 'names.json': '["traffic light", "V\u00e9lo"]',
    'coco.json': '{"categories": [{"id": 9, "name": "traffic light"}, {"id": 4, "name": "V\u00e9lo"}]}'}


@pytest.mark.parametrize('name', CLASSES)
def test_classes(load_dense, tmp_path, name):
    (tmp_path / name).write_text(CLASSES[name], encoding='utf-8')
    cfg = load_dense('--cfg-options', f'classes={tmp_path / name}')
    train, (first, second) = cfg.train_dataloader.dataset.dataset, cfg.test_dataloader.dataset.datasets
    for data in (train, first, second):
        assert data.metainfo.classes == ['traffic light', 'Vélo']
        assert len(set(map(tuple, data.metainfo.palette))) == 2
    assert cfg.num_classes == cfg.model.module.roi_head.bbox_head[1].num_classes == 2
    # Names of one's own are no choice of ADE20K's.
    assert (first.type, first.reduce_zero_label, first.metainfo.name) == ('mmseg.BaseSegDataset', True, 'a')
    assert (second.type, 'reduce_zero_label' in second) == ('CocoDataset', False)


def test_classes_on_the_command_line_and_below_the_data(load_dense, tmp_path):
    assert load_dense('--cfg-options', 'classes=3,4').train_dataloader.dataset.dataset.metainfo.classes == [
        '3', '4']
    (tmp_path / 'names.txt').write_text('a\nb\nc')
    (tmp_path / 'bird.py').write_text(DENSE.replace('None', "data_root + '/names.txt'"))
    assert load_dense('--data-root', str(tmp_path)).num_classes == 3


@pytest.mark.parametrize('options, error', [
    (['classes=nowhere.txt'], 'classes=nowhere.txt: there is no such file'),
    (['classes=a,b', 'num_classes=3'], 'num_classes=3, but .* has 2'),
    (['classes=a,b,a'], 'give each class one of its own'),
    (['crop_size=8'], r'crop_size=8: write it like \(64, 64\)'),
])
def test_short_settings_that_cannot_be(load_dense, options, error):
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        load_dense('--cfg-options', *options)


def test_sizes(load_dense):
    cfg = load_dense('--cfg-options', 'crop_size=96,48')
    assert cfg.train_dataloader.dataset.dataset.pipeline == [dict(crop_size=(96, 48), other=(64, 32))]
    assert cfg.model.test_cfg == dict(crop_size=(96, 48), stride=(64, 32))


@pytest.mark.parametrize('scope, extra', launch.PACKAGES.items())
def test_what_dense_models_need_is_named(load_dense, tmp_path, monkeypatch, scope, extra):
    with (tmp_path / 'bird.py').open('a') as file:
        file.write(f'default_scope = {scope!r}')
    load_dense()
    monkeypatch.setattr(launch.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=rf"needs {scope}, .* pip install -e '.\[{extra}\]'"):
        load_dense()


def test_what_is_named_in_full_is_not_overwritten():
    config = Path(__file__).parents[2] / 'configs/cls/linear_cae_vits_90e.py'
    cfg = launch.load_config(argparse.Namespace(
        config=str(config), data_root=None, work_dir=None, launcher='none', cfg_options={
            'model.backbone.init_cfg.checkpoint': 'mine.pth', 'model.head.num_classes': 7}))
    assert cfg.model.backbone.init_cfg.checkpoint == 'mine.pth'
    assert cfg.model.head.num_classes == 7


def test_work_dir(load):
    assert load().work_dir == 'work_dirs/bird'
    assert load('--work-dir', 'here').work_dir == 'here'
    assert load('--cfg-options', 'work_dir=there').work_dir == 'there'


def test_no_workers(load):
    loader = load('--cfg-options', 'train_dataloader.num_workers=0').train_dataloader
    assert (loader.persistent_workers, loader.prefetch_factor) == (False, None)
    assert load().train_dataloader.persistent_workers


@pytest.mark.parametrize('content, message', [
    ('a = 1\nb = (', r"bird.py, line 2: SyntaxError: '\(' was never closed"),
    ('a = 1\nb = c', 'bird.py, line 2: NameError'), ('_base_ = "./bird.py"', '_base_ leads back to itself'),
    ('_base_ = "./other.py"', 'bird.py: .*/other.py, line 3: ZeroDivisionError: integer'),
    ('_base_ = "./gone.py"', 'bird.py: .*/gone.py: FileNotFoundError'), ('\0', 'bird.py.*: .*null'),
    ('model = dict(a={{_base_.no}})', "bird.py: KeyError: 'no'"), ('a = 1', 'no config of a model'),
    ('model = 3', 'no config of a model'), ('model = dict(a=1)', 'no config of a model'),
    ('custom_imports = dict(imports=["gone"], allow_failed_imports=False)', 'bird.py: ImportError'),
    ("model = dict(type='A')\nwork_dir = 'file'", 'work_dir=file is a file: name a folder')])
def test_a_config_that_cannot_be_read(load, tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'other.py').write_text('a = 1\n\nb = 1 % 0')
    (tmp_path / 'file').touch()
    (tmp_path / 'bird.py').write_text(content)
    with pytest.raises(ValueError, match=message):
        load()


@pytest.mark.parametrize('name', ['nowhere.py', '.'])
def test_missing_config(name):
    with pytest.raises(FileNotFoundError, match=f'no config {name}'):
        launch.load_config(argparse.Namespace(config=name))


@pytest.mark.parametrize('options, message', [
    (['num_classes'], 'num_classes is no setting: write KEY=VALUE'), (['=3'], '=3 is no setting'),
    (['model..a=3'], 'model..a=3 is no setting'), (['a=1', 'a=2'], 'a is given twice'),
    (['a=1', '--cfg-options', 'a=2'], 'a is given twice'), (['a.b=1', 'a=2'], 'a and a.b set the same'),
    (['a=[1,2'], 'brackets that do not match'), (['a=(1,2]'], 'brackets that do not match'),
    (["a=dict(b=open('f'))"], "a=dict(b=open('f')): open('f') is no literal; write"),
    (['a={b: 1}', 'a.b=2'], 'a.b and a set the same')])
def test_settings_that_cannot_be_read(load, options, message, capsys):
    with pytest.raises(SystemExit):  # of a parser that is not a tool's
        load('--cfg-options', *options)
    assert message in capsys.readouterr().err


def test_dictionaries_as_python_writes_them(load):
    cfg = load('--cfg-options', "custom_hooks=[dict(type='EMAHook', momentum=1e-3)]",
               "visualizer={type: Visualizer, vis_backends: [dict(type='LocalVisBackend')]}")
    assert cfg.custom_hooks == [dict(type='EMAHook', momentum=1e-3)]
    assert cfg.visualizer.vis_backends[0].type == 'LocalVisBackend'


@pytest.mark.parametrize('text, value', [
    ("[dict(type='EMAHook')]", [dict(type='EMAHook')]), ('{a: x.Y, b: (1, -2)}', dict(a='x.Y', b=(1, -2))),
    ("dict(a=[None, True], b={'c, d': {}})", dict(a=[None, True], b={'c, d': {}})),
    ('[cat,dog]', ['cat', 'dog']), ('/data/{x}.pth', '/data/{x}.pth'), ('dict.pth', 'dict.pth')])
def test_values_of_settings(text, value):
    assert literals.parse_value(text) == value


@pytest.mark.parametrize('text', [
    'dict(a=1, a=2)', '{a: 1, a: 2}', '{1: 2}', '{[]: 1}', '{**a}', 'dict(**a)', 'dict(1)', 'dict(a=1 + 2)',
    "dict(a=f'{x}')", "{'a': b'x'}", '{a', '{a}', '[' * 9999 + '{', '[dict(a=b[0])]', 'dict(a=lambda: 0)'])
def test_no_literals(text):
    with pytest.raises(ValueError, match='write it as Python does'):
        literals.parse_value(text)


def test_none_leaves_a_hook_out(load):
    cfg = load('--cfg-options', 'default_hooks={timer: None, knn: None}')
    assert cfg.default_hooks == dict(timer=None)


def test_several_groups_of_settings_add_up(load):
    cfg = load('--cfg-options', 'num_workers=0', '--cfg-options', 'num_classes=7')
    assert (cfg.train_dataloader.num_workers, cfg.model.head.num_classes) == (0, 7)


def test_an_option_and_a_setting_of_one_name(load):
    with pytest.raises(ValueError, match='--data-root and --cfg-options data_root=/b: give one of both'):
        load('--data-root', '/a', '--cfg-options', 'data_root=/b')


def test_short_settings_of_a_training():
    cfg = load_of(PRETRAIN, lr=1e-4, batch_size=8, max_epochs=20, num_workers=3)
    assert cfg.optim_wrapper.optimizer.lr == 1e-4 and cfg.train_cfg.max_epochs == 20
    assert (cfg.train_dataloader.batch_size, cfg.train_dataloader.num_workers) == (8, 3)
    assert 'lr=0.0001: 1 place (optim_wrapper)' in cfg.changes
    cfg = load_of(SEGMENT, max_iters=3000, num_workers=2, batch_size=5)
    assert cfg.train_cfg.max_iters == 3000
    assert [cfg[loader].num_workers for loader in overrides.LOADERS] == [2, 2, 2]
    assert [cfg[loader].batch_size for loader in overrides.LOADERS] == [5, 1, 1]
    with pytest.raises(ValueError, match='max_epochs=3 changes nothing: .* no max_epochs, but max_iters'):
        load_of(SEGMENT, max_epochs=3)


def load_of(config, **options):
    cfg = Config.fromfile(Path(__file__).parents[2] / config)
    overrides.apply_options(cfg, options)
    return cfg


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda backend: backend)


def test_float32_is_float32(load, on_cpu, monkeypatch):
    """In validation and testing too, whatever the machine's default."""
    torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.allow_tf32 = True
    launch.start_processes(load())
    assert torch.get_float32_matmul_precision() == 'highest' and not torch.backends.cudnn.allow_tf32


def test_the_jobs_of_a_node_meet_at_ports_of_their_own(load, on_cpu, monkeypatch):
    ports = []
    for job in ('4213337', '4213338'):
        monkeypatch.setenv('SLURM_JOB_ID', job)
        monkeypatch.delenv('MASTER_PORT', raising=False)
        launch.start_processes(load())
        ports.append(os.environ['MASTER_PORT'])
    assert ports == ['23337', '23338']
    monkeypatch.setenv('MASTER_PORT', '1234')
    launch.start_processes(load())
    assert os.environ['MASTER_PORT'] == '1234'


@pytest.mark.parametrize('option', ['--launcher=mpi', '--local_rank=1'])
def test_what_never_worked_is_no_option(load, option):
    with pytest.raises(SystemExit):
        load(option)


def test_processes_on_cpu(load, on_cpu):
    cfg = load('--launcher', 'pytorch')
    launch.start_processes(cfg)
    assert cfg.model_wrapper_cfg.device_ids is None
    assert not cfg.model_wrapper_cfg.broadcast_buffers
    assert cfg.model.norm.type == 'BN'
    with pytest.raises(ValueError, match='slurm needs GPUs.*dist_train.sh'):
        launch.start_processes(load('--launcher', 'slurm'))
    alone = load()
    launch.start_processes(alone)
    assert alone.model.norm.type == 'SyncBN' and 'model_wrapper_cfg' not in alone


def test_threads_are_shared_out(load, on_cpu, monkeypatch):
    monkeypatch.delenv('OMP_NUM_THREADS')
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 8)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    threads = []
    monkeypatch.setattr(torch, 'set_num_threads', threads.append)
    launch.start_processes(load())
    assert threads == [2]


LATE = """
import atexit, os, torch
from cae_mm.engine import launch

class Late:
    def __del__(self, exit=os._exit):
        exit(3)  # where gloo's threads abort the process

late = Late()
atexit.register(print, 'at exit')
torch.distributed.destroy_process_group = lambda: os._exit(4)  # may wait for ever in PyTorch 2.6
torch.distributed.init_process_group('gloo', init_method='file://RENDEZVOUS', rank=0, world_size=1)
launch.end_processes()
"""


def test_a_gloo_process_ends_before_the_interpreter_is_taken_down(tmp_path):
    script = LATE.replace('RENDEZVOUS', str(tmp_path / 'rendezvous'))
    ended = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.endswith('at exit\n'), ended.stderr
