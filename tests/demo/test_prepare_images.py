"""Small copies of a user's own images."""
import os

import numpy as np
import pytest
from PIL import Image

from demo.prepare_images import prepare


def save(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(256, size=(*size[::-1], 3), dtype=np.uint8)
                    ).save(path)


def test_own_images_without_classes(tmp_path):
    for i in range(5):
        save(tmp_path / 'own' / 'deep' / f'{i}.png', (400, 300))
    assert prepare(tmp_path / 'own', tmp_path / 'out') == {'train': 5, 'classes': 0}
    sizes = {Image.open(path).size for path in (tmp_path / 'out' / 'train').rglob('*.jpg')}
    assert sizes == {(128, 96)} and not (tmp_path / 'out' / 'val').exists()


def test_own_images_in_classes(tmp_path):
    for name in ('cat', 'dog'):
        for i in range(10):
            save(tmp_path / 'own' / name / f'{i}.png')
    counts = prepare(tmp_path / 'own', tmp_path / 'out')
    assert counts == {'train': 16, 'val': 4, 'classes': 2}
    assert len(list((tmp_path / 'out' / 'val' / 'dog').iterdir())) == 2
    assert Image.open(next((tmp_path / 'out').rglob('*.jpg'))).size == (40, 30)  # small ones stay


def test_own_split_is_kept(tmp_path):
    for split, number in (('train', 4), ('val', 3)):
        for name in ('cat', 'dog'):
            for i in range(number):
                save(tmp_path / 'own' / split / name / f'{i}.png')
    assert prepare(tmp_path / 'own', tmp_path / 'out') == {'train': 8, 'val': 6, 'classes': 2}


def test_a_split_without_classes_or_with_other_ones(tmp_path):
    for split in ('train', 'val'):
        for i in range(3):
            save(tmp_path / 'flat' / split / f'{i}.png')
            save(tmp_path / 'odd' / split / ('cat', f'{split}_dog')[i % 2] / f'{i}.png')
    assert prepare(tmp_path / 'flat', tmp_path / 'out') == {'train': 3, 'classes': 0}
    with pytest.raises(ValueError, match='odd: train and val have different classes: train_dog, val_dog'):
        prepare(tmp_path / 'odd', tmp_path / 'out')


def test_own_images_at_most(tmp_path):
    for i in range(20):
        save(tmp_path / 'own' / f'{i}.png')
    assert prepare(tmp_path / 'own', tmp_path / 'out', max_images=5)['train'] == 5


def test_odd_things_among_own_images(tmp_path, capsys):
    own = tmp_path / os.fsdecode(b'caf\xe9')
    for i in range(20):
        save(own / f'{i}.png')
    (own / os.fsdecode(b'\xe9.jpg')).write_text('<html>')
    os.mkfifo(own / 'fifo.jpg')
    (own / 'loop').symlink_to('.')
    (own / 'notes.txt').touch()
    assert prepare(own, tmp_path / 'out') == {'train': 20, 'classes': 0}
    printed = capsys.readouterr().out
    for said in ('skipped 1 unreadable images', '\\udce9.jpg (UnidentifiedImageError: it is a web page',
                 '22 files, 21 used, 1 ignored (1 .txt)', 'fifo.jpg (neither a file'):
        assert said in printed


def test_own_images_missing_or_bad(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        prepare(tmp_path / 'own', tmp_path / 'out')
    (tmp_path / 'own').mkdir()
    with pytest.raises(FileNotFoundError, match='has no images'):
        prepare(tmp_path / 'own', tmp_path / 'out')
    save(tmp_path / 'own' / 'good.png')
    (tmp_path / 'own' / 'bad.png').write_bytes(b'bad')
    with pytest.raises(RuntimeError, match='1 of 2 images are unreadable: .*bad.png'):
        prepare(tmp_path / 'own', tmp_path / 'out')
