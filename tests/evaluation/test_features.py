"""Which images the encoder sees, and what becomes of its tokens."""
import numpy as np
import pytest
import torch
from PIL import Image

from cae_mm.evaluation import features
from cae_mm.evaluation.features import CenterView, extract_features, labelled_loader
from cae_mm.models import CAEViT


def test_features_are_means_or_class_tokens(folder, backbone, preprocess):
    loader = labelled_loader(folder / 'val', 16, batch_size=5)
    images = torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
                          for path in sorted((folder / 'val').rglob('*.png'))])
    with torch.no_grad():
        tokens = backbone.eval().encode(preprocess({'inputs': images})['inputs'])
    average, labels = extract_features(backbone, loader, preprocess, progress=False)
    cls, _ = extract_features(backbone, loader, preprocess, 'cls', progress=False)
    torch.testing.assert_close(average, tokens[:, 1:].mean(1))
    torch.testing.assert_close(cls, tokens[:, 0])
    assert labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert loader.dataset.classes == ('blue', 'green', 'red')


def test_mean_is_normalised_where_the_encoder_was_trained_so(folder, backbone, preprocess):
    loader = labelled_loader(folder / 'val', 16)
    backbone.norm.bias.data += torch.arange(16)
    backbone.norm.weight.data *= torch.arange(16)
    before, _ = extract_features(backbone, loader, preprocess, progress=False)
    backbone.out_type = 'avg_featmap'
    after, _ = extract_features(backbone, loader, preprocess, progress=False)
    with torch.no_grad():
        [batch] = [preprocess(batch) for batch, _ in loader]
        expected = backbone.eval()(batch['inputs'])[0]
    torch.testing.assert_close(after, expected)
    assert (after - before).abs().max() > 0.1


def test_without_class_token(folder, preprocess):
    backbone = CAEViT(dict(embed_dims=16, num_layers=2, num_heads=2), 16, 8, with_cls_token=False,
                      out_type='raw')
    loader = labelled_loader(folder / 'val', 16)
    average, _ = extract_features(backbone, loader, preprocess, progress=False)
    with torch.no_grad():
        [batch] = [preprocess(batch) for batch, _ in loader]
        torch.testing.assert_close(average, backbone.eval()(batch['inputs'])[0].mean(1))
    with pytest.raises(ValueError, match="feature='cls': this encoder has no class token"):
        extract_features(backbone, loader, preprocess, 'cls')


def test_bfloat16_is_close(folder, backbone, preprocess):
    loader = labelled_loader(folder / 'val', 16)
    full, _ = extract_features(backbone, loader, preprocess, progress=False)
    half, _ = extract_features(backbone, loader, preprocess, progress=False, amp=True)
    assert half.dtype == torch.float32
    assert 1e-4 < (half - full).abs().max() < 0.1


def test_leaves_modes_and_random_state(folder, backbone, preprocess):
    backbone.train()
    backbone.blocks[0].eval()
    state = torch.get_rng_state()
    extract_features(backbone, labelled_loader(folder / 'val', 16), preprocess, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert backbone.training and backbone.blocks[1].training and not backbone.blocks[0].training


def test_features_can_be_trained_on(folder, backbone, preprocess):
    features, _ = extract_features(backbone, labelled_loader(folder / 'val', 16), preprocess,
                                   progress=False)
    torch.nn.Linear(16, 3)(features).sum().backward()


def test_unknown_feature(folder, backbone, preprocess):
    with pytest.raises(ValueError, match="feature='max' is not one of avg, cls"):
        extract_features(backbone, labelled_loader(folder / 'val', 16), preprocess, 'max')


def test_view_of_the_right_size_is_untouched():
    image = np.random.default_rng(0).integers(256, size=(16, 24, 3), dtype=np.uint8)
    assert CenterView((16, 24))({'img': image})['img'] is image


@pytest.mark.parametrize('shape', [(400, 300), (300, 400), (60, 500), (224, 225)])
def test_view_is_the_centre(shape):
    y, x = np.mgrid[:shape[0], :shape[1]]
    ramp = np.stack([255 * y / shape[0], 255 * x / shape[1], 0 * x], -1).astype(np.uint8)
    view = CenterView(224)({'img': ramp})['img']
    assert view.shape == (224, 224, 3)
    np.testing.assert_allclose(view[..., :2].mean((0, 1)), 127.5, atol=3)
    # 224 of 256 pixels of the shorter side.
    shorter = int(np.argmin(shape))
    assert np.ptp(view[..., shorter].astype(int)) == pytest.approx(255 * 224 / 256, abs=4)


def test_empty_class(folder):
    (folder / 'val' / 'violet').mkdir()
    with pytest.raises(ValueError, match='no images of class violet'):
        labelled_loader(folder / 'val', 16)


def test_no_classes(folder):
    with pytest.raises(ValueError, match='no images of class folders'):
        labelled_loader(folder / 'val' / 'red', 16)


def test_no_folder(folder):
    with pytest.raises(FileNotFoundError, match='there is no folder .*test'):
        labelled_loader(folder / 'test', 16)


def test_an_unreadable_file_is_left_out(folder, backbone, preprocess):
    (folder / 'val' / 'red' / '3.png').write_bytes(b'not an image')
    loader = labelled_loader(folder / 'val', 16, batch_size=1)
    _, labels = extract_features(backbone, loader, preprocess, progress=False)
    assert labels.bincount().tolist() == [6, 6, 5]


def test_many_unreadable_files_are_an_error(folder, backbone, preprocess):
    for i in range(2):
        (folder / 'val' / 'red' / f'{i}.png').write_bytes(b'not an image')
    with pytest.raises(RuntimeError, match='2 of 18 files are unreadable: .*red/0.png'):
        extract_features(backbone, labelled_loader(folder / 'val', 16), preprocess,
                         progress=False)


@pytest.mark.parametrize('workers', [0, 1])
def test_ranks_share_the_images_and_keep_their_order(folder, backbone, preprocess, on_ranks, workers,
                                                     monkeypatch):
    """Batches of 5, 5, 5 and 3: each rank has two, and the second one the bad file."""
    (folder / 'val' / 'green' / '3.png').write_bytes(b'not an image')
    seen, pool = [], features.pool
    monkeypatch.setattr(features, 'pool', lambda backbone, images, feature: (
        seen.append(len(images)) or pool(backbone, images, feature)))

    def work():
        loader = labelled_loader(folder / 'val', 16, batch_size=5, num_workers=workers)
        found = extract_features(backbone, loader, preprocess, progress=False)
        return [x.numpy() for x in found], list(seen)

    [(expected, _)], *((first, of_first), (second, of_second)) = on_ranks(1, work), *on_ranks(2, work)
    assert (of_first, of_second) == ([5, 5], [4, 3])
    for found in first, second:
        assert all(map(np.array_equal, found, expected)) and len(found[1]) == 17


def test_a_rank_without_images(folder, backbone, preprocess, on_ranks):
    def work():
        loader = labelled_loader(folder / 'val', 16, batch_size=100)
        return len(extract_features(backbone, loader, preprocess, progress=False)[1])

    assert on_ranks(2, work) == [18, 18]


def test_symlinks_to_folders(folder):
    """Of a class, and below it."""
    (folder / 'val' / 'red').rename(folder / 'elsewhere')
    (folder / 'val' / 'red').symlink_to(folder / 'elsewhere')
    (folder / 'deep').mkdir()
    (folder / 'val' / 'blue').rename(folder / 'deep' / 'blue')
    (folder / 'val' / 'blue').mkdir()
    (folder / 'val' / 'blue' / 'more').symlink_to(folder / 'deep' / 'blue')
    dataset = labelled_loader(folder / 'val', 16).dataset
    assert dataset.classes == ('blue', 'green', 'red') and len(dataset) == 18


def test_float32_whatever_the_training_allows(folder, backbone, preprocess, monkeypatch):
    def allowed():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    found, pool = [], features.pool
    monkeypatch.setattr(features, 'pool', lambda *args: found.append(allowed()) or pool(*args))
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', True)
    torch.set_float32_matmul_precision('high')
    try:
        extract_features(backbone, labelled_loader(folder / 'val', 16), preprocess, progress=False)
        assert found == [('highest', False)] and allowed() == ('high', True)
    finally:
        torch.set_float32_matmul_precision('highest')


def test_a_compiled_encoder_is_not_compiled_again(folder, backbone, preprocess):
    """The shapes of the evaluation are not those of the training."""
    compiled = []
    backbone.blocks[0].compile(backend=lambda graph, inputs: compiled.append(graph) or graph.forward)
    extract_features(backbone, labelled_loader(folder / 'val', 16), preprocess, progress=False)
    assert not compiled
    backbone(torch.zeros(1, 3, 16, 16))
    assert compiled
