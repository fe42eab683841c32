"""Do the data sets have the classes that the head has?"""
import os

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop
from mmpretrain.registry import HOOKS

from .reader import leaves


@HOOKS.register_module()
class ClassesHook(Hook):
    """Refuse data whose classes are not those of the head, before anything is computed.

    mmpretrain numbers the classes by their sorted folders. Another set of folders would give wrong
    labels without an error, a class without images only a warning, and too many classes an
    unreadable error on the GPU.

    Raises:
        ValueError: naming the numbers, the folder and the way out.
    """

    def before_run(self, runner):
        """Check the data sets of all loops that are about to run."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        num_classes, first = model.head.num_classes, None
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if not isinstance(loop, BaseLoop):
                continue
            for dataset in leaves(loop.dataloader.dataset):
                check_images(dataset)
                if first is None:
                    check_number(dataset, num_classes)
                    first = dataset
                check_names(first, dataset)
            check_topk(getattr(loop, 'evaluator', None), num_classes)


def check_images(dataset):
    """Every sub-folder that is a class must have an image."""
    for name in sorted(getattr(dataset, 'empty_classes', ())):
        folder = os.path.join(dataset.img_prefix, name)
        raise ValueError(f'the class {name!r} has no image in {folder} (looked for '
                         f'{" ".join(sorted(dataset.extensions))}): remove the folder, or put '
                         'images in it')


def check_number(dataset, num_classes):
    """The head must have the data's number of classes; without names, every label a place."""
    names = dataset.metainfo.get('classes')
    found = len(names) if names else int(dataset.get_gt_labels().max()) + 1
    if found > num_classes or names and found < num_classes:
        raise ValueError(f'the head has {num_classes} classes, the data in {dataset.img_prefix} '
                         f'{found}: --cfg-options num_classes={found}')


def check_names(first, other):
    """Both must have the same names in the same order."""
    names, others = (dataset.metainfo.get('classes') or () for dataset in (first, other))
    if tuple(names) == tuple(others):
        return
    only = [', '.join(map(repr, [name for name in a if name not in b][:5])) or 'none'
            for a, b in ((names, others), (others, names))]
    raise ValueError(f'{first.img_prefix} has {len(names)} classes and {other.img_prefix} '
                     f'{len(others)}; only in the former: {only[0]}; only in the latter: {only[1]}. '
                     'Both need the same classes, in the same order')


def check_topk(evaluator, num_classes):
    """No accuracy can be among more classes than there are."""
    for metric in getattr(evaluator, 'metrics', ()):
        k = max(getattr(metric, 'topk', ()), default=0)
        if k > num_classes:
            raise ValueError(f'there is no top-{k} accuracy among {num_classes} classes: '
                             '--cfg-options val_evaluator.topk=1 test_evaluator.topk=1')
