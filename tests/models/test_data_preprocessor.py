"""What the models get from a batch."""
import torch

from cae_mm.models.data_preprocessor import CAEDataPreprocessor

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)


def pixels(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


def test_two_views():
    images, small, mask = pixels(2, 3, 8, 8), pixels(2, 3, 4, 4), torch.eye(2, 4).bool()
    batch = dict(images=images, target_images=small, mask=mask)
    out = CAEDataPreprocessor()({'inputs': batch}, training=True)
    assert out['data_samples'] is None
    torch.testing.assert_close(out['inputs']['images'], (images - MEAN) / STD)
    torch.testing.assert_close(out['inputs']['target_images'], small / 255)
    assert torch.equal(out['inputs']['mask'], mask)
    assert batch['images'] is images  # the batch itself is not changed


def test_one_view():
    images = pixels(2, 3, 8, 8)
    inputs = CAEDataPreprocessor([0, 0, 0], [51, 51, 51])({'inputs': {'images': images}})['inputs']
    assert set(inputs) == {'images', 'target_images'}
    torch.testing.assert_close(inputs['images'], images / 51)
    torch.testing.assert_close(inputs['target_images'], images / 255)


def test_plain_batches():
    images = pixels(2, 3, 8, 8)
    for inputs in (images, list(images)):
        out = CAEDataPreprocessor()({'inputs': inputs, 'data_samples': ['a', 'b']})
        torch.testing.assert_close(out['inputs'], (images - MEAN) / STD)
        assert out['data_samples'] == ['a', 'b']


def test_statistics_are_not_saved():
    assert CAEDataPreprocessor().state_dict() == {}
