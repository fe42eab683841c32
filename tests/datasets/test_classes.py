"""Data that does not fit the head is refused; tests/configs has the hook in a run."""
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.runner import BaseLoop
from mmpretrain.evaluation import Accuracy
from PIL import Image

from cae_mm.datasets import ClassesHook, ImageFolder, ReproducibleDataset


class Loop(BaseLoop):
    """A built loop; what the runner has not built is a dict."""

    def __init__(self, dataset, topk):
        super().__init__(None, SimpleNamespace(dataset=dataset))
        self.evaluator = SimpleNamespace(metrics=[Accuracy(topk)])

    def run(self):
        raise AssertionError('nothing is run')


@pytest.fixture
def check(tmp_path):
    """A function that writes one image per class, and checks training or testing on them."""
    def run(num_classes, train, val, test=False, topk=1, **changes):
        for split, names in (('train', train), ('val', val)):
            for name in names:
                folder = tmp_path / split / name
                folder.mkdir(parents=True, exist_ok=True)
                if not name.startswith('empty'):
                    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / 'image.png')
        changes.update(serialize_data=False)  # which collects garbage, and that takes long
        train, val = (ImageFolder(data_root=str(tmp_path), data_prefix=split, **changes)
                      for split in ('train', 'val'))
        train, val, config = Loop(ReproducibleDataset(train), 1), Loop(val, topk), dict(type='Loop')
        model = SimpleNamespace(head=SimpleNamespace(num_classes=num_classes))
        ClassesHook().before_run(SimpleNamespace(
            model=model, _train_loop=config if test else train, _val_loop=config if test else val,
            _test_loop=val if test else None))
    return run


@pytest.mark.parametrize('test', [False, True])
def test_number_of_classes(check, test, tmp_path):
    check(3, 'abc', 'abc', test)
    for num_classes in (2, 1000):
        with pytest.raises(ValueError, match=f'the head has {num_classes} classes, the data in '
                           f'{tmp_path}/{"val" if test else "train"} 3: .*num_classes=3'):
            check(num_classes, 'abc', 'abc', test)


@pytest.mark.parametrize('val, message', [
    (['cat'], r"train has 2 classes and .*val 1; only in the former: 'dog'; .*latter: none"),
    (['cat', 'hen'], r"train has 2 classes and .*val 2; .*former: 'dog'; .*latter: 'hen'")])
def test_names_of_training_and_validation(check, val, message):
    with pytest.raises(ValueError, match=message):
        check(2, ['cat', 'dog'], val)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_empty_class(check, split, tmp_path):
    names = dict(train=['cat', 'dog'], val=['cat', 'dog'])
    names[split] = ['cat', 'empty_dog']
    with pytest.raises(ValueError, match=rf"the class 'empty_dog' has no image in {tmp_path}/{split}/"):
        check(2, **names)


def test_labels_without_names(check, tmp_path):
    (tmp_path / 'list.txt').write_text('a/image.png 0\nb/image.png 7\n')
    with pytest.raises(ValueError, match='the head has 3 classes, .*num_classes=8'):
        check(3, 'ab', 'ab', ann_file=str(tmp_path / 'list.txt'))
    # A list need not contain every class.
    check(10, 'ab', 'ab', ann_file=str(tmp_path / 'list.txt'))


def test_top_k_of_few_classes(check):
    with pytest.raises(ValueError, match='no top-5 accuracy among 2 classes: .*val_evaluator.topk=1'):
        check(2, 'ab', 'ab', topk=(1, 5))
