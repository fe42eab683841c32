"""Some images of a folder: by a list, and as many of each class."""
import random

import pytest
from mmengine.config import Config

from cae_mm.datasets import ImageFolder
from cae_mm.datasets.few import listed, shots_of
from cae_mm.engine.overrides import apply_options

SAMPLES = [(f'{name}/{i}.png', label) for label, name in enumerate(('cat', 'dog', 'owl')) for i in range(9)]


def test_shots_depend_on_nothing_but_the_seed():
    chosen = shots_of(SAMPLES, 3)
    assert [label for _, label in chosen] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    shuffled = random.Random(0).sample(SAMPLES, len(SAMPLES))
    assert sorted(shots_of(shuffled, 3)) == chosen
    assert shots_of(SAMPLES[9:18], 3) == chosen[3:6]
    assert set(chosen) < set(shots_of(SAMPLES, 5))
    assert shots_of(SAMPLES, 3, seed=1) != chosen
    # On any machine, with any version of Python and numpy.
    assert [path for path, _ in chosen[:3]] == ['cat/0.png', 'cat/1.png', 'cat/8.png']
    with pytest.raises(ValueError, match=r'shots=10: fewer images have the classes cat \(9\); dog'):
        shots_of(SAMPLES, 10)


def test_lists_of_names_and_of_paths(tmp_path):
    file = tmp_path / 'list.txt'
    samples = [(f'{name}/{name}_{i}.png', label) for (name, i), label in zip(
        [('a', 0), ('a', 1), ('b', 0)], (0, 0, 1), strict=True)]
    file.write_text('b_0.png\n\na/a_1.png\n')
    assert listed(samples, file) == samples[1:]
    assert listed([path for path, _ in samples], file) == ['a/a_1.png', 'b/b_0.png']
    file.write_text('a_0.png\nc_0.png\n')
    with pytest.raises(ValueError, match=r'1 of its 2 names .*: c_0.png \(0 files\)'):
        listed(samples, file)
    file.write_text('0.png')
    with pytest.raises(ValueError, match=r'0.png \(3 files\).*CLASS/NAME'):
        listed(SAMPLES, file)
    file.write_text('')
    with pytest.raises(ValueError, match='names no image'):
        listed(samples, file)
    with pytest.raises(FileNotFoundError, match='nothing'):
        listed(samples, 'nothing')


def test_a_folder_takes_a_part(image_folder, tmp_path):
    folder, file = str(image_folder(12)), tmp_path / 'list.txt'

    def names(**options):
        dataset = ImageFolder(data_root=folder, pipeline=[], **options)
        return [(dataset.get_data_info(i)['img_path'][-7:], dataset.get_data_info(i).get('gt_label'))
                for i in range(len(dataset))]

    assert [label for _, label in names(shots=2)] == [0, 0, 1, 1]
    file.write_text('000.png\n001.png\n005.png')
    assert names(subset=str(file)) == [('000.png', 0), ('001.png', 1), ('005.png', 1)]
    assert names(subset=str(file), shots=1)[0] == ('000.png', 0)
    without = names(subset=str(file), with_label=False)
    assert without == [('000.png', None), ('001.png', None), ('005.png', None)]
    file.write_text('001.png')
    with pytest.raises(ValueError, match='has no image of class0'):
        names(subset=str(file))
    with pytest.raises(ValueError, match='shots=2 .*: take subset'):
        names(shots=2, with_label=False)


def test_short_settings_reach_the_training_alone():
    cfg = Config.fromfile('configs/cls/finetune_cae_vitb_100e.py')
    apply_options(cfg, dict(shots=4, shots_seed=2, subset='list.txt'))
    leaf = cfg.train_dataloader.dataset.dataset
    assert (leaf.shots, leaf.shots_seed, leaf.subset) == (4, 2, 'list.txt')
    assert 'shots' not in cfg.val_dataloader.dataset
    with pytest.raises(ValueError, match='shots=0: it has to be a whole number from 1 on'):
        apply_options(cfg, dict(shots=0))
    with pytest.raises(ValueError, match='shots=4 changes nothing'):
        apply_options(Config.fromfile('configs/det/mask_rcnn_cae_vitb_1x_coco.py'), dict(shots=4))
