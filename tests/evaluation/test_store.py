"""Kept features are those of this encoder and these images, or none."""
import os
import shutil
from collections import namedtuple

import pytest
import torch
from mmpretrain.registry import MODELS

from cae_mm.evaluation import protocol
from cae_mm.evaluation.store import write


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
    assert sorted(os.listdir(tmp_path / 'kept')) == ['train.safetensors', 'val.safetensors']


def test_what_is_read_can_be_written_without_changing_the_file(extract):
    extract()['train'][0].zero_()
    assert extract()['train'][0].abs().sum() > 0


@pytest.mark.parametrize('change, named', [
    (dict(feature='cls'), 'feature: avg there, cls now'),
    (dict(amp=True), 'precision: float32 there, bfloat16 now'),
])
def test_other_settings(extract, change, named):
    extract()
    with pytest.raises(ValueError, match=f'train.safetensors holds other features: {named}. Choose'):
        extract(**change)


def test_other_weights(extract, backbone):
    extract()
    backbone.norm.bias.data[3] += 1e-6
    with pytest.raises(ValueError, match=r'features: weights of the encoder: \w{16} there, \w{16} now. C'):
        extract()


def test_names_that_are_not_utf8(extract, folder):
    image = min((folder / 'val').rglob('*.png'))
    image.rename(image.with_name(os.fsdecode(b'caf\xe9.png')))
    extract()
    assert extract()['val']
    image.with_name(os.fsdecode(b'caf\xe9.png')).rename(image)
    with pytest.raises(ValueError, match='images: '):
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
    with pytest.raises(ValueError, match=r'image size: \(16, 16\) there, \(24, 24\) now'):
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
    with pytest.raises(ValueError, match='val.* holds other features: images: 18 files .* there, 1[78] f'):
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
    assert os.listdir(tmp_path / 'kept') == []
    assert torch.equal(extract()['train'][0], extract(None)['train'][0])


def test_an_interrupted_write_leaves_nothing_that_looks_complete(extract, tmp_path, monkeypatch):
    def killed(tensors, path, metadata):
        path.write_bytes(b'half')
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(write.__globals__, 'save_file', killed)
        extract()
    assert not (tmp_path / 'kept' / 'train.safetensors').exists()
    assert torch.equal(extract()['train'][0], extract(None)['train'][0])


def test_unreadable_files_have_no_rows(extract, folder):
    (folder / 'train' / 'red' / '3.png').write_bytes(b'not an image')
    kept, fresh, again = extract()['train'], extract(None)['train'], extract()['train']
    assert len(kept[0]) == 35
    assert all(map(torch.equal, kept, fresh)) and all(map(torch.equal, again, fresh))


def test_a_file_of_something_else_stays_as_it_is(extract, tmp_path):
    (tmp_path / 'kept').mkdir()
    (tmp_path / 'kept' / 'train.safetensors').write_bytes(b'something else')
    with pytest.raises(ValueError, match='train.safetensors holds something else .*Choose another'):
        extract()
    assert (tmp_path / 'kept' / 'train.safetensors').read_bytes() == b'something else'


def test_a_full_disk_shows_before_the_work(extract, backbone, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: namedtuple('usage', 'free')(3455))
    monkeypatch.setattr(backbone, 'encode', None)
    with pytest.raises(OSError, match=r'kept needs 0.00 GiB and has 0.00. Choose another directory'):
        extract()
