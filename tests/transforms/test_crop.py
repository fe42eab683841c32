"""The box, the flip and the two views."""
import random

import numpy as np
import pytest
import torch
from PIL import Image

from cae_mm.transforms import ClippedResizedCrop, PackViews, TwoViewCrop


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize('backend', ['pillow', 'torch'])
def test_flip_is_that_of_the_whole_image(backend):
    crop, image, box = TwoViewCrop((32, 24), 16, backend=backend), noise(50, 70), (5, 11, 33, 40)
    ours = crop.crop(image, box, flip=True)
    mirrored = crop.crop(np.ascontiguousarray(image[:, ::-1]), box, flip=False)
    assert ours['img'].shape == (3, 32, 24) and ours['target_img'].shape == (3, 16, 16)
    for key in ours:
        assert ours[key].dtype == torch.uint8 and ours[key].is_contiguous()
        assert torch.equal(ours[key], mirrored[key])


def test_pixels_outside_the_box_do_not_matter():
    crop, image, box = TwoViewCrop(32), noise(50, 70), (5, 11, 33, 40)
    changed = np.zeros_like(image)
    changed[5:38, 11:51] = image[5:38, 11:51]
    assert torch.equal(crop.crop(image, box, False)['img'], crop.crop(changed, box, False)['img'])
    expected = Image.fromarray(image[5:38, 11:51]).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(crop.crop(image, box, False)['img'].permute(1, 2, 0), expected)


def test_fast_backend_is_close_on_natural_statistics():
    blurred = Image.fromarray(noise(30, 40)).resize((400, 300), Image.Resampling.BICUBIC)
    image, draws = np.asarray(blurred), []
    exact, fast = TwoViewCrop(64, 32), TwoViewCrop(64, 32, backend='torch')
    random.seed(0)
    for _ in range(20):
        box = exact.draw_box(300, 400)
        pair = exact.crop(image, box, False), fast.crop(image, box, False)
        draws += [(pair[0][key].int() - pair[1][key].int()).abs().flatten() for key in pair[0]]
    difference = torch.cat(draws)
    assert difference.max() <= 2 and (difference > 0).float().mean() < 0.01


def test_before_torch_2_13_lanczos_is_pillows(monkeypatch):
    monkeypatch.setattr('cae_mm.transforms.crop.TORCH_HAS_LANCZOS', False)
    exact, fast = (TwoViewCrop(64, 32, backend=backend).crop(noise(50, 70), (5, 11, 33, 40), False)
                   for backend in ('pillow', 'torch'))
    assert torch.equal(exact['target_img'], fast['target_img'])  # lanczos
    assert not torch.equal(exact['img'], fast['img'])


@pytest.mark.parametrize('shape', [(1, 1), (1, 300), (300, 1), (7, 500), (300, 200)])
def test_box_lies_in_the_image(shape):
    crop = TwoViewCrop(8)
    random.seed(0)
    for _ in range(200):
        top, left, h, w = crop.draw_box(*shape)
        assert h > 0 and w > 0 and 0 <= top <= shape[0] - h and 0 <= left <= shape[1] - w


def test_very_long_image_gives_the_central_box():
    random.seed(0)
    assert TwoViewCrop(8).draw_box(30, 3000) == (0, 1480, 30, 40)
    assert TwoViewCrop(8).draw_box(3000, 30) == (1480, 0, 40, 30)


def test_the_seed_decides():
    def sample(seed):
        random.seed(seed)
        torch.manual_seed(seed)
        return PackViews()(TwoViewCrop(16, 8)({'img': noise(40, 40)}))['inputs']

    first, again, other = sample(1), sample(1), sample(2)
    assert set(first) == {'images', 'target_images'}
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first['images'], other['images'])


def test_one_view_and_names():
    assert set(PackViews()(TwoViewCrop(16)({'img': noise(40, 40)}))['inputs']) == {'images'}
    with pytest.raises(ValueError, match="'cubic' is not one of"):
        TwoViewCrop(16, interpolation='cubic')
    with pytest.raises(ValueError, match="'cv2' is not one of"):
        TwoViewCrop(16, backend='cv2')


@pytest.mark.parametrize('shape', [(1, 1), (1, 300), (300, 1), (7, 500), (300, 200)])
def test_clipped_box_lies_in_the_image(shape):
    crop, image = ClippedResizedCrop(scale=8), np.zeros((*shape, 3), np.uint8)
    np.random.seed(0)
    for _ in range(200):
        top, left, h, w = crop.rand_crop_params(image)
        assert h > 0 and w > 0 and 0 <= top <= shape[0] - h and 0 <= left <= shape[1] - w


def test_clipped_box_is_drawn_once():
    """Area and aspect are uniform and log-uniform; what does not fit is cut, not drawn again."""
    crop, image = ClippedResizedCrop(scale=8), np.zeros((300, 400, 3), np.uint8)
    np.random.seed(0)
    boxes = np.array([crop.rand_crop_params(image) for _ in range(4000)])
    np.random.seed(0)
    for top, left, h, w in boxes[:100]:
        area = np.random.uniform(0.08, 1) * 300 * 400
        aspect = np.exp(np.random.uniform(np.log(3 / 4), np.log(4 / 3)))
        assert h == min(round((area / aspect) ** 0.5), 300)
        assert w == min(round((area * aspect) ** 0.5), 400)
        assert top == np.random.randint(300 - h + 1) and left == np.random.randint(400 - w + 1)
    full_height = (boxes[:, 2] == 300).mean()
    assert 0.2 < full_height < 0.4  # mmpretrain's crop, which draws again, has less than 0.01


def test_clipped_crop_is_resized_by_pillow():
    crop = ClippedResizedCrop(scale=32, backend='pillow', interpolation='bicubic')
    image = noise(50, 70)
    np.random.seed(3)
    out = crop({'img': image})
    np.random.seed(3)
    top, left, h, w = crop.rand_crop_params(image)
    box = Image.fromarray(image[top:top + h, left:left + w])
    assert np.array_equal(out['img'], box.resize((32, 32), Image.Resampling.BICUBIC))
    assert out['img_shape'][:2] == (32, 32)
