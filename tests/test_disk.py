"""Folders that hold anything: what would hang is passed by, and named."""
import json
import os
import stat

import pytest
from mmengine.fileio import get_text, list_dir_or_file, list_from_file
from mmengine.registry import init_default_scope

from cae_mm.datasets import ImageFolder, ReproducibleDataset
from cae_mm.disk import list_images, named, printable, read_regular, walk


@pytest.fixture
def folder(tmp_path):
    """A folder with pictures in two classes, and much else; and what is passed by in it."""
    for name in ('a/1.jpg', 'a/deep/2.PNG', 'b/3.webp', 'b/notes.txt', 'b/.4.jpg', 'b/5.heic', '6.gif'):
        path = tmp_path / 'all' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    root = tmp_path / 'all'
    os.mkfifo(root / 'a/fifo.jpg')
    links = {'a/loop.jpg': 'loop.jpg', 'a/broken.jpg': 'nowhere.jpg', 'a/up': '..', 'above': '../..',
             'b/again': '../a/deep', 'self': 'self'}
    for link, target in links.items():
        (root / link).symlink_to(target)
    return root, {'a/fifo.jpg', *links}


def test_pictures_of_a_folder(folder, capfd):
    root, odd = folder
    assert list_images(root) == ['6.gif', 'a/1.jpg', 'a/deep/2.PNG', 'b/3.webp']
    logged = ''.join(capfd.readouterr())
    assert f'{root}: 6 files, 4 used, 2 ignored (1 .heic, 1 .txt)' in logged
    assert all(f'{root}/{path} (' in logged for path in odd)
    assert f'above (leads to {root.parent.parent}, which is read already)' in logged


def test_all_data_sets_list_alike(folder, capfd):
    root, _ = folder
    assert sorted(list_dir_or_file(root, list_dir=False, suffix='.jpg', recursive=True)) == ['a/1.jpg']
    assert sorted(list_dir_or_file(root, list_file=False)) == ['a', 'b']
    whole = ImageFolder(data_root=str(root), with_label=False, pipeline=[])
    assert len(whole) == 4
    classes = ImageFolder(data_root=str(root), pipeline=[])
    assert classes.CLASSES == ('a', 'b') and classes.get_gt_labels().tolist() == [0, 0, 1, 1]
    assert '7 files, 4 used, 3 ignored (1 .heic, 1 .txt, 1 beside the folders of the classes)' in ''.join(
        capfd.readouterr())
    with pytest.raises(FileNotFoundError):
        list_images(root / 'nowhere')


def test_links_that_multiply_are_followed_once(tmp_path):
    for level in range(30):
        folder = tmp_path / f'{level}'
        folder.mkdir()
        for name in 'xy':
            (folder / name).symlink_to(f'../{level + 1}')
    (tmp_path / '30').mkdir()
    (tmp_path / '30/1.jpg').touch()
    assert len(list_images(tmp_path / '0')) == 1


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / 'locked').mkdir()
    (tmp_path / '1.jpg').touch()
    scandir = os.scandir

    def guarded(path):  # root may read everything
        if str(path).endswith('locked'):
            raise PermissionError(13, 'Permission denied')
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', guarded)
    passed = {}
    assert [path for path, is_folder in walk(tmp_path, passed) if not is_folder] == ['1.jpg']
    assert passed == {str(tmp_path / 'locked'): 'Permission denied'}


def test_what_becomes_a_fifo_while_it_is_opened(tmp_path, monkeypatch):
    path = tmp_path / 'x.jpg'
    path.touch()
    regular = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, 'stat', lambda path: regular)
    with pytest.raises(OSError, match='x.jpg is a FIFO, not a file'):
        read_regular(path)
    assert stat.S_ISREG(regular.st_mode)


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b'caf\xe9.jpg')
    assert json.loads(printable(json.dumps([name], ensure_ascii=False)).encode()) == [name]
    assert named([name] * 12).endswith('caf\\udce9.jpg; and 2 more')
    (tmp_path / 'list.txt').write_bytes(b'caf\xe9.jpg\r\nb.jpg\n')
    assert list_from_file(tmp_path / 'list.txt') == [name, 'b.jpg'] and get_text(tmp_path / 'list.txt')


@pytest.mark.parametrize('task', ['cls', 'seg'])
def test_data_sets_of_the_tasks_pass_by(folder, task):
    root, _ = folder
    init_default_scope('mmseg' if task == 'seg' else 'mmpretrain')
    cfg = dict(type='ImageFolder') if task == 'cls' else dict(
        type='BaseSegDataset', data_prefix=dict(img_path=''), metainfo=dict(classes=['a']))
    data = ReproducibleDataset(dict(cfg, data_root=str(root), pipeline=[]))
    assert data.num_files == (4 if task == 'cls' else 1)
