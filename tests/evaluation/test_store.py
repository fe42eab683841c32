"""Kept features are those of this encoder and these images, or none."""
import errno
import json
import os
import threading

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from cae_mm.evaluation import protocol
from cae_mm.evaluation.store import FeatureStore, locked


@pytest.fixture
def extract(folder, backbone, preprocess, tmp_path):
    """A function that extracts the toy folder's features, keeping them or not."""

    def run(kept=tmp_path / 'kept', encoder=backbone, preprocess=preprocess, size=16, **kwargs):
        loaders = protocol.labelled_splits(folder, size, batch_size=7)
        return protocol.extract_splits(encoder, preprocess, loaders, progress=False, features=kept,
                                       **kwargs)

    return run


def test_kept_are_the_extracted_and_are_not_extracted_again(extract, backbone, tmp_path,
                                                            monkeypatch):
    fresh, kept = extract(None), extract()
    monkeypatch.setattr(backbone, 'encode', None)
    again = extract()
    for split in ('train', 'val'):
        for a, b, c in zip(fresh[split], kept[split], again[split], strict=True):
            assert torch.equal(a, b) and torch.equal(a, c) and a.dtype == c.dtype
    assert np.load(tmp_path / 'kept' / 'train' / 'features.npy').shape == (36, 16)
    assert sorted(os.listdir(tmp_path / 'kept')) == ['lock', 'train', 'val']


def test_what_is_read_can_be_written_without_changing_the_file(extract):
    extract()['train'][0].zero_()
    assert extract()['train'][0].abs().sum() > 0


@pytest.mark.parametrize('change, named', [
    (dict(feature='cls'), 'feature: avg there, cls now'),
    (dict(amp=True), 'precision: float32 there, bfloat16 now'),
])
def test_other_settings(extract, change, named):
    extract()
    with pytest.raises(ValueError, match=f'train holds other features: {named}. Choose another dir'):
        extract(**change)


def test_other_weights(extract, backbone):
    extract()
    backbone.norm.bias.data[3] += 1e-6
    with pytest.raises(ValueError, match=r'features: weights of the encoder: \w{16} there, \w{16} now. C'):
        extract()


def test_another_normalisation(extract):
    extract()
    half = MODELS.build(dict(type='mmpretrain.CAEDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3))
    with pytest.raises(ValueError, match=r'features: mean and std of pixels: .*there, .*127.5.*now'):
        extract(preprocess=half)


@pytest.mark.parametrize('setting, named', [
    (dict(out_type='avg_featmap'), 'final norm: before the mean there, after the mean now'),
    (dict(arch=dict(embed_dims=16, num_layers=2, num_heads=4)), 'attention heads: 2 there, 4 now'),
])
def test_another_encoder_with_the_same_weights(extract, backbone, setting, named):
    extract()
    config = dict(type='mmpretrain.CAEViT', img_size=16, patch_size=8,
                  arch=dict(embed_dims=16, num_layers=2, num_heads=2)) | setting
    other = MODELS.build(config)
    other.load_state_dict(backbone.state_dict())
    with pytest.raises(ValueError, match=f'other features: {named}. C'):
        extract(encoder=other)


def test_another_image_size(extract, backbone):
    extract()
    with pytest.raises(ValueError, match=r'image size: \[16, 16\] there, \[24, 24\] now'):
        extract(size=24)


@pytest.mark.parametrize('change', [
    lambda image: image.unlink(),
    lambda image: image.rename(image.with_name('new.png')),
    lambda image: image.write_bytes(b'longer' + image.read_bytes()),
    lambda image: os.utime(image, (1, 1)),
])
def test_other_images(extract, folder, change):
    extract()
    change(folder / 'val' / 'red' / '0.png')
    with pytest.raises(ValueError, match='val holds other features: images: 18 files .* there, 1[78] f'):
        extract()


def test_an_interrupted_extraction_leaves_nothing_that_looks_complete(extract, backbone, tmp_path,
                                                                      monkeypatch):
    encode, calls = backbone.encode, []

    def interrupted(images):
        calls.append(images)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(images)

    monkeypatch.setattr(backbone, 'encode', interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract()
    assert not (tmp_path / 'kept' / 'train').exists()
    assert torch.equal(extract()['train'][0], extract(None)['train'][0])
    assert sorted(os.listdir(tmp_path / 'kept')) == ['lock', 'train', 'val']


def test_unreadable_files_have_no_rows(extract, folder, tmp_path):
    (folder / 'train' / 'red' / '3.png').write_bytes(b'not an image')
    kept, fresh = extract()['train'], extract(None)['train']
    assert all(map(torch.equal, kept, fresh)) and len(kept[0]) == 35
    assert sorted(os.listdir(tmp_path / 'kept' / 'train')) == [
        'features.npy', 'labels.npy', 'origin.json']


def test_a_folder_of_something_else_stays_as_it_is(extract, folder):
    before = sorted(folder.rglob('*'))
    with pytest.raises(ValueError, match='train holds something else than features. Choose another'):
        extract(folder)
    assert sorted(folder.rglob('*')) == before


def test_a_full_disk_shows_before_the_work(extract, backbone, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'posix_fallocate', full)
    monkeypatch.setattr(backbone, 'encode', None)
    with pytest.raises(OSError, match=r'features.npy needs 0.00 GiB: No space left.*another directory'):
        extract()


def test_a_second_process_waits_and_uses_the_result(tmp_path, capsys):
    results = []

    def second():
        store = FeatureStore(tmp_path / 'kept' / 'train', {'weights': 1})
        results.append(store.get((2, 3), None))  # calling None would fail

    with locked(tmp_path / 'kept'):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and 'waiting for another process' in capsys.readouterr().out
        part = tmp_path / 'part'
        part.mkdir()
        np.save(part / 'features.npy', np.ones((2, 3), np.float32))
        np.save(part / 'labels.npy', np.arange(2))
        (part / 'origin.json').write_text(json.dumps({'weights': 1}))
        part.rename(tmp_path / 'kept' / 'train')
    thread.join(10)
    assert results[0][0].tolist() == [[1, 1, 1], [1, 1, 1]]
