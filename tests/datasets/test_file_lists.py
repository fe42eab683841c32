"""The list of a folder's files is kept for the next start, and never taken when the folder has changed."""
import os
import shutil

import pytest

from cae_mm.datasets import ImageFolder, file_lists
from cae_mm.disk import walk


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with two classes, one of them behind a link, whose last change counts as long ago."""
    monkeypatch.setattr(file_lists, 'RECENT', -1e9)
    for name in ('all/a/1.png', 'all/a/deep/2.png', 'all/a/notes.txt', 'far/3.png', 'other/4.png',
                 'all/5.png'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / 'all/b').symlink_to('../far')
    return tmp_path / 'all'


@pytest.fixture
def listed(root, monkeypatch):
    """A function that makes the data set, and gives its samples and how many folders were walked for it."""
    def run(with_label=True):
        walked = []
        monkeypatch.setattr(file_lists, 'walk', lambda *args: walked.append(args[0]) or walk(*args))
        data = ImageFolder(data_root=str(root), with_label=with_label, pipeline=[],
                           serialize_data=False)  # which collects garbage, and that takes long
        infos = [data.get_data_info(number) for number in range(len(data))]
        return [(os.path.relpath(info['img_path'], root), info.get('gt_label'))
                for info in infos], len(walked)

    return run


@pytest.mark.parametrize('with_label, expected', [
    (True, [('a/1.png', 0), ('a/deep/2.png', 0), ('b/3.png', 1)]),
    (False, [('5.png', None), ('a/1.png', None), ('a/deep/2.png', None), ('b/3.png', None)])])
def test_a_second_start_walks_through_nothing(listed, capfd, with_label, expected):
    assert listed(with_label) == (expected, 3 if with_label else 1)
    first = capfd.readouterr()
    assert listed(with_label) == (expected, 0)
    assert ' used, ' in first.err + first.out
    assert listed(not with_label)[1] > 0 and listed(not with_label)[1] == 0 == listed(with_label)[1]


@pytest.mark.parametrize('change', [
    lambda root: (root / 'a/deep/6.png').touch(), lambda root: (root / 'a/deep/2.png').unlink(),
    lambda root: (root / 'a/1.png').rename(root / 'a/7.png'), lambda root: (root / 'b/8.png').touch(),
    lambda root: (root / 'c').mkdir(), lambda root: shutil.rmtree(root / 'a/deep'),
    lambda root: [(root / 'b').unlink(), (root / 'b').symlink_to('../other')],
    lambda root: [(root.parent / 'far').rename(root.parent / 'gone'), (root.parent / 'other').rename(
        root.parent / 'far')]])
def test_every_change_is_seen(root, listed, change):
    before = listed()[0]
    folders = [folder for folder, _, _ in os.walk(root.parent, followlinks=True)]
    times = {folder: os.stat(folder).st_mtime_ns for folder in folders}
    change(root)
    for folder, time in times.items():  # as rsync and tar do
        if os.path.exists(folder):
            os.utime(folder, ns=(time, time))
    after, walked = listed()
    assert walked
    shutil.rmtree(os.environ['XDG_CACHE_HOME'])
    assert (after, walked) == listed()
    assert after != before or (root / 'c').exists()


@pytest.mark.parametrize('reason', ['recent', 'link', 'file system'])
def test_what_may_change_unseen_is_not_kept(root, listed, monkeypatch, reason):
    if reason == 'recent':
        monkeypatch.setattr(file_lists, 'RECENT', 60)
    elif reason == 'link':
        (root / 'a/9.png').symlink_to('nowhere.png')
    else:
        monkeypatch.setattr(file_lists, 'TOLD_BY', {'nfs'})
    assert listed() == listed() and listed()[1]


def test_damaged_and_unwritable_caches(listed, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    first = listed()
    [kept] = (tmp_path / 'cache').rglob('*.json')
    kept.write_bytes(kept.read_bytes()[:-10])
    assert listed() == first and listed()[1] == 0
    monkeypatch.setenv('XDG_CACHE_HOME', '/proc/nowhere')
    assert listed()[0] == first[0]
    assert 'the list of files is not kept for the next start' in ''.join(capfd.readouterr())


def test_one_process_of_several_walks(listed, on_ranks):
    results = on_ranks(3, listed)
    assert [samples for samples, _ in results] == [results[0][0]] * 3
    assert sorted(walked for _, walked in results) == [0, 0, 3]
