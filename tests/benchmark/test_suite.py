"""What is asked of a benchmark: models, tasks and data, and the commands that they become."""
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from cae_mm.benchmark import cells_of, choose, parse_model, read_suite
from cae_mm.engine import launch
from cae_mm.engine.literals import parse_value

CONFIGS = Path(__file__).parents[2] / 'configs' / 'benchmark'
FULL = 'imagenet_coco_ade20k'


@pytest.fixture
def data(tmp_path):
    """Folders with the layout's class folders, and no pictures."""
    for folder in ('imagenet/train/cat', 'imagenet/train/dog', 'coco/train2017', 'ade20k/images/training'):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / '0.jpg').touch()
    return {name: tmp_path / name for name in ('imagenet', 'coco', 'ade20k')}


@pytest.fixture
def models(tmp_path):
    (tmp_path / 'a.pth').write_bytes(b'weights')
    return [parse_model(text) for text in (
        f'cae={tmp_path / "a.pth"}', f'mae=timm:vit_base_patch16_224.mae:{tmp_path / "a.pth"}',
        'dinov3=timm:vit_base_patch16_dinov3:none', 'random=cae_vitb:none', 'small=cae_vits:none')]


def test_models_of_each_form(tmp_path, models):
    path = str(tmp_path / 'a.pth')
    assert [(model.label, model.encoder, model.weights) for model in models] == [
        ('cae', None, path), ('mae', 'timm:vit_base_patch16_224.mae', path),
        ('dinov3', 'timm:vit_base_patch16_dinov3', 'none'), ('random', 'cae_vitb', 'none'),
        ('small', 'cae_vits', 'none')]
    assert models[0].digest() == models[1].digest() != models[2].digest() == 'random'


@pytest.mark.parametrize('text, error, problem', [
    ('a.pth', ValueError, 'write LABEL=FILE'), ('=a.pth', ValueError, 'write LABEL=FILE'),
    ('../a=none', ValueError, 'write LABEL=FILE'),
    ('a=timm:vit_tiny_patch16_224', ValueError, 'no weights'),
    ('a=timm:vit_tiny_patch16_225:none', ValueError, 'do you mean vit_tiny_patch16_224'),
    ('a=cae_vits:', ValueError, 'no weights'), ('a=b.pth', FileNotFoundError, 'no file b.pth')])
def test_wrong_models(text, error, problem):
    with pytest.raises(error, match=problem):
        parse_model(text)


@pytest.mark.parametrize('names, data, problem', [
    (['knn', 'upernett'], dict(imagenet='a', ade20k='b'), 'do you mean upernet'),
    (['knn', 'upernet'], dict(imagenet='a'), 'upernet needs --ade20k DIR'),
    (None, {}, 'knn needs --imagenet DIR, of train/CLASS/')])
def test_wrong_tasks(names, data, problem):
    with pytest.raises(ValueError, match=problem):
        choose(read_suite(CONFIGS / f'{FULL}.py'), names, data)


def test_tasks_whose_data_are_given():
    suite = read_suite(CONFIGS / f'{FULL}.py')
    assert [task.name for task in choose(suite, None, dict(ade20k='a'))] == ['upernet', 'linear_seg']


@pytest.mark.parametrize('change, problem', [
    ('encoder = 1', 'is no suite'), ('tasks = dict(a=dict(run="tools/knn.py"))', 'task a: .*missing'),
    ('tasks = dict(a=dict(run="b", metric="c", data="voc"))', 'data=voc is not one of imagenet')])
def test_what_is_no_suite(tmp_path, change, problem):
    path = tmp_path / 'suite.py'
    path.write_text('encoder = "cae_vitb"\ntasks = dict(a=dict(run="b", metric="c", data="coco"))\n'
                    + change)
    with pytest.raises(ValueError, match=problem):
        read_suite(path)


@pytest.mark.parametrize('gpus', [0, 8])
def test_each_command_of_the_full_suite_can_be_called(data, models, tmp_path, gpus):
    """40 commands: their configs are loaded and built, without memory for the numbers."""
    suite = read_suite(CONFIGS / f'{FULL}.py')
    cells = cells_of(suite, models, choose(suite, None, data), [0], data, tmp_path / 'out', 0)
    assert len(cells) == 40 and len({cell.folder for cell in cells}) == 40
    for cell in cells:
        object.__setattr__(cell, 'gpus', gpus)
        assert gpus or cell.model.label != 'cae' or cell.operations > 0
        command = cell.command
        assert all((CONFIGS.parents[1] / word).is_file() for word in command[:2 if gpus else 3]
                   if word.startswith(('tools/', 'configs/')))
        if not cell.task.trains or gpus:
            continue
        assert command[:3] == ['python', 'tools/train.py', cell.task.run]
        at = command.index('--cfg-options')
        options = dict(text.split('=', 1) for text in command[at + 1:])
        cfg = launch.load_config(Namespace(
            config=str(CONFIGS.parents[1] / command[2]), data_root=[str(cell.data.folder)], work_dir='.',
            pretrained=cell.model.weights, backbone=cell.model.encoder, launcher='none',
            cfg_options={key: parse_value(value) for key, value in options.items()}))
        assert cfg.train_cfg.val_interval == cfg.train_cfg.get('max_epochs', cfg.train_cfg.get('max_iters'))
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
        with torch.device('meta'):
            MODELS.build(cfg.model)


def test_what_makes_another_cell(data, models, tmp_path):
    suite = read_suite(CONFIGS / f'{FULL}.py')

    def folder(model=models[0], seed=0, task='linear'):
        [cell] = cells_of(suite, [model], [suite.tasks[task]], [seed], data, tmp_path / 'out', 0)
        return cell.folder

    first = folder()
    assert first == folder() and folder(seed=1) != first and folder(models[3]) != first
    (tmp_path / 'a.pth').write_bytes(b'others')
    assert folder() != first
    (tmp_path / 'a.pth').write_bytes(b'weights')
    (data['imagenet'] / 'train/cat/1.jpg').write_bytes(b'one more')
    assert folder() != first


def test_each_fine_tuning_of_mmpretrain_differs_in_one_thing(data, models, tmp_path):
    suite = read_suite(CONFIGS / 'evidence_mmpretrain.py')
    tasks = [suite.tasks[name] for name in ('finetune', 'finetune_half', 'finetune_quarter')]
    ours, half, quarter = (
        {key: value for key, value in cell.config.to_dict().items() if not key.startswith('_')}
        for cell in cells_of(suite, models[:1], tasks, [0], data, tmp_path / 'out', 0))
    changed = ({key for key in ours | other if ours.get(key) != other.get(key)}
               for other in (half, quarter))
    assert [*changed] == [{'data_preprocessor', 'model'}, {'train_dataloader'}]
    assert half['data_preprocessor']['mean'] == half['data_preprocessor']['std'] == [127.5] * 3
    sizes = [cfg['train_dataloader'].pop('batch_size') for cfg in (ours, quarter)]
    assert sizes[0] == 4 * sizes[1] and ours['train_dataloader'] == quarter['train_dataloader']
    for part in (ours['model'], half['model']):
        part.pop('data_preprocessor', None)
        part['backbone']['init_cfg'].pop('trained_with', None)
    assert ours['model'] == half['model']
