"""Samples depend on (seed, epoch, index) alone, and bad files are replaced and remembered."""
import pickle
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, default_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, MODELS
from torch.utils.data import DataLoader

import cae_mm.models.data_preprocessor  # noqa: F401
from cae_mm.datasets import EpochSampler, ReproducibleDataset, UnreadableFile


def batches(dataset, workers=0, epoch=0, **kwargs):
    sampler = EpochSampler(dataset)
    sampler.set_epoch(epoch)
    loader = DataLoader(dataset, 4, sampler=sampler, num_workers=workers,
                        collate_fn=default_collate, **kwargs)
    return [batch['inputs'] for batch in loader]


def equal(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize('kwargs', [{}, dict(persistent_workers=True)])
def test_workers_do_not_matter(image_folder, config, kwargs):
    dataset = ReproducibleDataset(config(image_folder(13, bad=[3])))
    one, two = batches(dataset), batches(dataset, workers=2, **kwargs)
    assert len(one) == len(two) == 4
    assert all(map(equal, one, two))
    assert one[0]['images'].shape == (4, 3, 16, 16) and one[0]['images'].dtype == torch.uint8
    assert one[0]['target_images'].shape == (4, 3, 8, 8) and one[0]['mask'].shape == (4, 16)


def test_seed_epoch_and_index_matter(image_folder, config):
    folder = image_folder(4)
    dataset, other = (ReproducibleDataset(config(folder), seed) for seed in (0, 1))
    sample = dataset[2]['inputs']
    torch.rand(3)
    assert equal(sample, dataset[2]['inputs'])
    for changed in (other[2], dataset[2 + len(dataset)], dataset[3]):
        assert not torch.equal(sample['images'], changed['inputs']['images'])


def test_it_has_an_end(image_folder, config):
    dataset = ReproducibleDataset(config(image_folder(4)))
    got = [sample['inputs'] for sample in dataset]
    assert len(got) == 4 and all(map(equal, got, (dataset[i]['inputs'] for i in range(4))))


def test_pickles(image_folder, config):
    dataset = ReproducibleDataset(config(image_folder(4)))
    assert equal(pickle.loads(pickle.dumps(dataset))[1]['inputs'], dataset[1]['inputs'])
    assert dataset.metainfo == dataset.dataset.metainfo


@pytest.mark.parametrize('workers', [0, 2])
def test_bad_files_are_replaced_and_named(image_folder, config, workers):
    folder = image_folder(20, bad=[6, 7])
    dataset = ReproducibleDataset(config(folder))
    assert dataset.bad_files() == {}
    for epoch in range(2):
        assert sum(len(batch['images']) for batch in batches(dataset, workers, epoch)) == 20
    bad = dataset.bad_files()
    names = sorted(dataset.get_data_info(i)['img_path'] for i in range(20)
                   if dataset.get_data_info(i)['img_path'][-7:-4] in ('006', '007'))
    assert sorted(bad) == names
    assert all('OSError' in reason for reason in bad.values())


def test_more_than_a_tenth_is_an_error(image_folder, config):
    dataset = ReproducibleDataset(config(image_folder(20, bad=[1, 2, 3])))
    with pytest.raises(RuntimeError, match=r'(?s)3 of 20 .*class1/001.png \(OSError.*Repair'):
        batches(dataset)


def test_a_single_bad_file_is_all_there_is(image_folder, config):
    dataset = ReproducibleDataset(config(image_folder(1, bad=[0])))
    with pytest.raises(UnreadableFile, match='000.png cannot be read .OSError'):
        dataset[0]


def test_folders_without_images(tmp_path, config, image_folder):
    empty, texts = tmp_path / 'empty', tmp_path / 'texts'
    empty.mkdir()
    texts.mkdir()
    (texts / 'a.txt').write_text('no image')
    for folder in (empty, texts, tmp_path / 'missing'):
        with pytest.raises(FileNotFoundError, match=rf'no images .*{folder}.*\.jpg.* data_root'):
            ReproducibleDataset(config(folder))
    flat = image_folder(4) / 'class0'
    assert len(ReproducibleDataset(config(flat))) == 2
    with pytest.raises(FileNotFoundError, match='sub-folders of the folder .* with_label=False'):
        ReproducibleDataset(config(flat, with_label=True))


def test_a_dataset_without_its_list_and_with_several_folders(tmp_path):
    # As mmdet's and mmseg's: the folders are in data_prefix, there is no img_prefix.
    DATASETS.register_module('Listed', module=BaseDataset, force=True)
    with pytest.raises(FileNotFoundError, match=f'no images .*{tmp_path}/pictures.*list.json'):
        ReproducibleDataset(dict(type='Listed', ann_file=str(tmp_path / 'list.json'),
                                 data_root=str(tmp_path), data_prefix=dict(img='pictures')))


def test_labels_and_imagenet_are_accepted(image_folder, config):
    folder = image_folder(6)
    labelled = ReproducibleDataset(config(folder, with_label=True))
    assert set(labelled[0]['inputs']) == {'images', 'target_images', 'mask'}
    imagenet = dict(config(folder.parent, with_label=False), type='ImageNet', data_prefix='images')
    assert equal(ReproducibleDataset(imagenet)[3]['inputs'],
                 ReproducibleDataset(config(folder))[3]['inputs'])


@pytest.mark.parametrize('name', ['pretrain_imagenet', 'pretrain_small'])
def test_base_configs(image_folder, name):
    root = Path(__file__).parents[2]
    cfg = Config.fromfile(root / f'configs/_base_/datasets/{name}.py')
    loader = cfg.train_dataloader
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    loader.dataset.dataset.update(data_root=str(image_folder(5)), data_prefix='')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        batches = list(Runner.build_dataloader(loader, seed=0))
        inputs = MODELS.build(cfg.data_preprocessor)(batches[0])['inputs']
    assert len(batches) == 2
    _, crop, mask, _ = cfg.pipeline
    assert inputs['images'].shape == (2, 3, crop.size, crop.size)
    assert inputs['target_images'].shape == (2, 3, crop.target_size, crop.target_size)
    assert inputs['mask'].shape == (2, mask.grid ** 2)
    assert inputs['mask'].sum(1).tolist() == [mask.num_masked] * 2
