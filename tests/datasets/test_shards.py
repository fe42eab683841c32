"""Images in shards give the samples of the folder that was packed, wherever the shards are."""
import io
import json
import pickle
import shutil
import tarfile
import threading

import fsspec
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS
from PIL import Image
from torch.utils.data import DataLoader

from cae_mm.datasets import EpochSampler, ReproducibleDataset, sampler
from cae_mm.datasets.pack import pack
from cae_mm.datasets.shards import ShardIndex
from cae_mm.engine import launch
from cae_mm.engine.runner import TrainingRunner
from tests.engine.test_sharding import CAE


@pytest.fixture
def packed(image_folder, tmp_path):
    """A folder of 50 images, and the same in 5 shards or so."""
    folder = image_folder(50)
    pack(str(folder), tmp_path / 'shards', None, 15_000, 0)
    return folder, tmp_path / 'shards'


@pytest.fixture
def store():
    """A folder of fsspec's store in memory."""
    files = fsspec.filesystem('memory')
    yield 'memory://shards'
    files.rm('/', recursive=True)


def sharded(config, place, **kwargs):
    return ReproducibleDataset(dict(config(place), type='ShardedImages', **kwargs))


def batches(dataset, workers=0, start=0, **kwargs):
    order = EpochSampler(dataset, **kwargs)
    order.set_epoch(1)
    order.set_start(4 * start)
    return [batch['inputs'] for batch in DataLoader(dataset, 4, sampler=order, num_workers=workers,
                                                    collate_fn=default_collate)]


def equal(one, two):
    assert len(one) == len(two) > 0
    assert all(torch.equal(a[key], b[key]) for a, b in zip(one, two, strict=True) for key in a)


@pytest.mark.parametrize('workers, ranks', [(0, 1), (1, 2), (3, 1)])
def test_batches_are_those_of_the_folder(packed, config, monkeypatch, workers, ranks):
    folder, shards = packed
    one, two = ReproducibleDataset(config(folder)), sharded(config, shards)
    assert len(list(shards.glob('*.tar'))) > 3 and len(two) == 50
    for rank in range(ranks):
        monkeypatch.setattr(sampler, 'get_dist_info', lambda rank=rank: (rank, ranks))
        whole = batches(one)
        equal(whole, batches(two, workers))
        equal(whole[2:], batches(two, workers, start=2))  # as after a kill in mid-epoch
    equal([one[7]['inputs']], [pickle.loads(pickle.dumps(two))[7]['inputs']])


@HOOKS.register_module()
class Crash(Hook):
    """Ends its process in the middle of the second epoch, with what is on the disk by then."""
    priority = 'LOWEST'  # after the checkpoint

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 9:
            raise ArithmeticError


def test_two_processes_train_as_on_the_folder(packed, config, on_ranks, tmp_path, monkeypatch):
    monkeypatch.setattr(Config, 'pretty_text', '')
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setenv('LOCAL_RANK', '0')
    cuts = dict(type='TwoViewCrop', size=16, target_size=32)

    def train(work, place, kind, resume=False, hooks=()):
        images = dict(config(place), type=kind)
        images['pipeline'][1] = cuts
        cfg = Config(dict(
            default_scope='mmpretrain', work_dir=str(tmp_path / work), model=CAE, resume=resume,
            launcher='pytorch', experiment_name=f'{work}_{resume}',
            train_dataloader=dict(
                batch_size=4, num_workers=0, dataset=dict(type='ReproducibleDataset', dataset=images),
                sampler=dict(type='EpochSampler'), collate_fn=dict(type='default_collate')),
            train_cfg=dict(type='ResumableEpochLoop', max_epochs=2),
            optim_wrapper=dict(type='AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
            default_hooks=dict(
                runtime_info=dict(type='TrainingMonitor'), signals=dict(type='SignalHook'), logger=None,
                checkpoint=dict(type='SafeCheckpointHook', interval=1, minutes=0)),
            custom_hooks=hooks, randomness=dict(seed=0)))
        launch.set_wrapper(cfg)
        TrainingRunner.from_cfg(cfg).train()

    def weights(work):
        return torch.load(tmp_path / work / 'epoch_2.pth', weights_only=True)['state_dict']

    folder, shards = packed
    assert on_ranks(2, lambda: train('folder', folder, 'ImageFolder')) == [None, None]
    crashed = on_ranks(2, lambda: train('shards', shards, 'ShardedImages', hooks=[dict(type='Crash')]))
    assert [*map(type, crashed)] == [ArithmeticError] * 2
    assert [*(tmp_path / 'shards').glob('interrupted_iter_*')]
    assert on_ranks(2, lambda: train('shards', shards, 'ShardedImages', resume=True)) == [None, None]
    assert all(torch.equal(weights('shards')[name], value) for name, value in weights('folder').items())


def test_labels_are_those_of_the_folder(packed, config):
    folder, shards = packed
    one = ReproducibleDataset(config(folder, with_label=True)).dataset
    two = sharded(config, shards, with_label=True).dataset
    assert one.metainfo == two.metainfo and (one.get_gt_labels() == two.get_gt_labels()).all()
    assert all(one.get_data_info(i)['gt_label'] == two.get_data_info(i)['gt_label'] for i in (0, 20, -1))
    assert len(pickle.dumps(two.index)) < 5000 and two.index.records.itemsize == 20


def test_window_reads_shards_in_turn(packed, config, monkeypatch):
    data = sharded(config, packed[1])
    order = list(EpochSampler(data, window=2))
    assert sorted(order) == list(range(50)) and order != list(EpochSampler(data, window=2, seed=1))
    shard = np.repeat(np.arange(len(data.shard_sizes)), data.shard_sizes)[order]
    left = [shard.tolist().index(number) for number in dict.fromkeys(shard)]
    for first in left[2:]:  # when a third shard begins, the first has ended
        assert len({*shard[:first]} & {*shard[first:]}) < 2
    for ranks in (2, 3):
        for rank in range(ranks):
            monkeypatch.setattr(sampler, 'get_dist_info', lambda rank=rank, ranks=ranks: (rank, ranks))
            share = EpochSampler(data, window=2, round_up=True)
            share.set_start(3)
            assert list(share)[:13 - 3] == (order + order)[rank::ranks][3:3 + len(share) - 3][:10]


def test_window_without_shards(packed, config):
    with pytest.raises(ValueError, match='window is for images that are all in shards.* no window'):
        EpochSampler(ReproducibleDataset(config(packed[0])), window=2)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_store_and_its_bounded_cache(packed, config, store, tmp_path, workers):
    shards, cache = packed[1], tmp_path / 'cache'
    fsspec.filesystem('memory').put(str(shards), store, recursive=True)
    bound = 4 * max(path.stat().st_size for path in shards.glob('*.tar'))
    far = sharded(config, store, cache_dir=str(cache), cache_bytes=bound)
    equal(batches(sharded(config, shards)), batches(far, workers))
    assert not [*cache.rglob('*.tar')]  # without a window each image is read alone
    seen = set()
    wanted = iter(batches(sharded(config, shards), window=2))
    order = EpochSampler(far, window=2)
    order.set_epoch(1)
    for batch in DataLoader(far, 4, sampler=order, num_workers=workers, collate_fn=default_collate):
        equal([batch['inputs']], [next(wanted)])
        for thread in threading.enumerate():
            if '_fetch' in thread.name:
                thread.join()
        seen |= (kept := {*cache.rglob('*.tar')})
        assert sum(path.stat().st_size for path in kept) <= bound
    assert workers or len(seen) == len(far.shard_sizes) > 4  # workers let the sampler run ahead
    with pytest.raises(ValueError, match=r'5 shards.*more than cache_bytes=\d+: raise it, or lower window'):
        list(EpochSampler(far, window=3))
    kept = next(cache.rglob('*.tar'))
    fsspec.filesystem('memory').rm(f'{store}/{kept.name}')
    with pytest.raises(FileNotFoundError, match=f'{kept.name} has no bytes, not the .* copy it again'):
        sharded(config, store)


def test_an_unfinished_download_makes_room(packed, config, store, tmp_path):
    fsspec.filesystem('memory').put(str(packed[1]), store, recursive=True)
    index = ShardIndex(store, tmp_path / 'cache', 40_000)
    stale = index.files.cache_dir / 'shard-000099.tar.partial-'
    stale.write_bytes(bytes(30_000))
    index.files._fetch(index.tars[0], index.bytes[0])
    assert not stale.exists() and (index.files.cache_dir / index.tars[0]).stat().st_size == index.bytes[0]
    index.files._fetch(index.tars[1], 50_000)
    assert not (index.files.cache_dir / index.tars[1]).exists()


def test_bad_files_are_left_out_and_listed(image_folder, tmp_path):
    out = tmp_path / 'shards'
    lines = pack(str(image_folder(20, bad=[3, 4])), out, None, 15_000, 2)
    assert lines[0].startswith('18 images in 2 tar files') and '2, all of them in' in lines[1]
    assert {*json.loads((out / 'bad_files.json').read_text())} == {'class1/003.png', 'class0/004.png'}
    index = ShardIndex(out)
    assert len(index.names()) == len(index.records) == 18 and index.classes == ['class0', 'class1']


def test_damage_in_a_shard_is_reported_as_in_a_folder(packed, config):
    shards = packed[1]
    tar = shards / 'shard-000001.tar'
    index = ShardIndex(shards)
    number = index.sizes[0] + 2
    content = bytearray(tar.read_bytes())
    start = int(index.records['block'][number]) * 512
    content[start:start + 60] = bytes(60)
    tar.write_bytes(content)
    data = sharded(config, shards)
    assert sum(len(batch['images']) for batch in batches(data)) == 50
    data[number]
    [(path, reason)] = data.bad_files().items()
    assert path == index.path(number) and 'UnidentifiedImageError' in reason


def test_packing_goes_on_where_it_ended(packed):
    folder, shards = packed
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    for name in ('shard-000002.tar', 'shards.json'):
        (shards / name).unlink()
    pack(str(folder), shards, None, 15_000, 0)
    assert {path.name: path.read_bytes() for path in shards.iterdir()} == before
    with pytest.raises(ValueError, match='shards of other images or options'):
        pack(str(folder), shards, 12, 15_000, 0)


def test_smaller_images_from_a_list(packed, tmp_path):
    folder, _ = packed
    names = ['class1/001.png', 'class0/000.png', 'class0/missing.png']
    (folder / 'list.txt').write_text('\n'.join(names) + '\n')
    lines = pack(str(folder / 'list.txt'), tmp_path / 'small', 10, 10**6, 0)
    index = ShardIndex(tmp_path / 'small')
    assert index.names() == names[:2] and '% of the' in lines[0]
    assert 'missing.png (FileNotFoundError' in lines[1]
    with fsspec.open(f'{tmp_path}/small/{index.tars[0]}') as file, tarfile.open(fileobj=file) as tar:
        assert tar.getnames() == names[:2]
    assert Image.open(io.BytesIO(index.read(0, 10**6))).size == (10, 12)


def test_decoded_images_give_the_same_samples(packed, config, tmp_path):
    folder, shards = packed
    for number, source in enumerate((folder, shards)):
        place = tmp_path / f'pixels{number}'
        pack(str(source), place, None, 15_000, 0, pixels=True)
        assert ShardIndex(place).read(7, 10**6).startswith(b'P6\n20 24\n255\n')
        equal(batches(sharded(config, place)), batches(ReproducibleDataset(config(folder))))
    with pytest.raises(ValueError, match='shards of other images or options'):
        pack(str(folder), tmp_path / 'pixels0', None, 15_000, 0)


def test_tar_files_of_others(packed, tmp_path):
    """Such as WebDataset's, with classes beside the images, and with much else."""
    folder, _ = packed
    place = tmp_path / 'wds'
    place.mkdir()
    for number in range(2):
        with tarfile.open(place / f'{number}.tar', 'w') as tar:
            for image in range(3):
                tar.add(folder / f'class{image % 2}/{image:03}.png', f'./{number}{image}.png')
                for suffix, content in dict(cls=b'7', json=b'{}').items():
                    member = tarfile.TarInfo(f'{number}{image}.{suffix}')
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    before = {path: path.read_bytes() for path in place.iterdir()}
    pack(str(place), tmp_path / 'index', None, 10**9, 0)
    index = ShardIndex(tmp_path / 'index')
    assert index.names() == ['00.png', '01.png', '02.png', '10.png', '11.png', '12.png']
    assert index.records['label'].tolist() == [7] * 6 and index.path(4) == f'{place}/1.tar/11.png'
    assert index.read(4, 10**6) == (folder / 'class1/001.png').read_bytes()
    assert before == {path: path.read_bytes() for path in place.iterdir()}
    pack(str(place), tmp_path / 'again', 12, 10**9, 0)
    again = ShardIndex(tmp_path / 'again')
    assert again.names() == index.names() and again.records['label'].tolist() == [7] * 6
    with tarfile.open(place / '2.tar', 'w:gz') as tar:
        tar.add(folder)
    with pytest.raises(ValueError, match='2.tar is no whole tar file .*unpack it'):
        pack(str(place), tmp_path / 'bad', None, 10**9, 0)


def test_nothing_to_pack_or_to_read(tmp_path, config, packed):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='empty has no images, nor .tar files'):
        pack(str(tmp_path / 'empty'), tmp_path / 'out', None, 10**9, 0)
    with pytest.raises(FileNotFoundError, match='has no shards.json, which tools/make_shards.py makes'):
        sharded(config, tmp_path / 'empty')
    for part in ('train', 'val'):
        shutil.copytree(packed[0], tmp_path / 'parts' / part)
    with pytest.raises(ValueError, match='holds train/ and val/: pack each'):
        pack(str(tmp_path / 'parts'), tmp_path / 'out', None, 10**9, 0)
    (packed[1] / 'shards.index').write_bytes(bytes(20))
    with pytest.raises(ValueError, match='do not fit: copy all three again'):
        sharded(config, packed[1])
