"""Do the annotations for detection and segmentation fit the pictures, the classes and the model?"""
import os
from collections.abc import Iterator

from mmengine.config import Config, ConfigDict
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import BaseLoop
from mmpretrain.registry import HOOKS

from .coco import check_coco
from .label_maps import check_label_maps, check_labels


def check_annotations(cfg: Config, *parts: str) -> None:
    """Check the COCO and ADE20K data sets of a config before they are built.

    mmdet drops annotations that do not fit, in silence, and when nothing is left, both it and mmseg fail
    with an error that names nothing. The main process checks, the others wait for it.

    Args:
        cfg (Config): its default scope is in force.
        *parts (str): of which data loaders: 'train', 'val', 'test'.

    Raises:
        FileNotFoundError, ValueError: see ``check_coco``, ``check_label_maps``.
        ValueError: when a metric reads other annotations than its data set.
    """
    for part in parts if is_main_process() else ():
        if cfg.get(f'{part}_dataloader') is None:
            continue
        files = []
        for settings in leaf_datasets(cfg[f'{part}_dataloader'].dataset):
            for key in ('ann_file', 'proposal_file'):
                if str(settings.get(key, '')).endswith(('.pkl', '.pickle')):
                    raise ValueError(f'{part}_dataloader: {key}={settings[key]} runs code when it is read: '
                                     'write what is in it as .json')
            with DATASETS.switch_scope_and_registry(None) as registry:
                kind = registry.get(settings.type)
                options = dict(settings, lazy_init=True, pipeline=[])
                if hasattr(kind, 'COCOAPI'):
                    dataset = registry.build(options)
                    check_coco(dataset, any(step.get('with_mask') for step in settings.pipeline))
                    files.append(dataset.ann_file)
                elif hasattr(kind, 'get_label_map'):
                    check_label_maps(registry.build(options))
        metrics = cfg.get(f'{part}_evaluator') or []
        for metric in metrics if isinstance(metrics, list) else [metrics]:
            other = metric.get('ann_file')
            if len(files) == 1 and other and os.path.realpath(other) != os.path.realpath(files[0]):
                raise ValueError(f'{part}_evaluator.ann_file={other}, but the pictures are those of '
                                 f'{files[0]}: --cfg-options {part}_evaluator.ann_file={files[0]}')
    barrier()


def leaf_datasets(settings: ConfigDict) -> Iterator[ConfigDict]:
    """The settings of the data sets that read files, without the wrappers around them."""
    inner = settings.get('datasets') or ([settings['dataset']] if 'dataset' in settings else [])
    if not inner:
        yield settings
    for child in inner:
        yield from leaf_datasets(child)


@HOOKS.register_module()
class AnnotationCheckHook(Hook):
    """Refuse heads of another number of classes than the data, and labels beyond the classes.

    A label map with such labels fails on GPUs with an error that names nothing, and is left out of the
    metric in silence. ``check_annotations`` has read only some of the maps.
    """

    def before_run(self, runner):
        """Compare the classes of the model's parts with those of the data sets that will be used.

        Raises:
            ValueError: naming the part, both numbers and the way out.
        """
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if not isinstance(loop, BaseLoop):
                continue
            dataset = loop.dataloader.dataset
            found = len(dataset.metainfo['classes'])
            for name, module in runner.model.named_modules():
                # A region proposal network only tells objects from background; '' is all of the model; and
                # timm's backbones have 0.
                if (getattr(module, 'num_classes', 0) or found) != found and name and 'rpn' not in name:
                    raise ValueError(f'{name} has {module.num_classes} classes, the data {found}: '
                                     f'--cfg-options num_classes={found}, or, for data of your own, '
                                     'classes=FILE with the names of its classes')

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """See ``check_labels``."""
        check_labels(data_batch['data_samples'], runner.train_dataloader.dataset)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        """See ``check_labels``."""
        check_labels(data_batch['data_samples'], runner.val_dataloader.dataset)

    def before_test_iter(self, runner, batch_idx, data_batch=None):
        """See ``check_labels``."""
        check_labels(data_batch['data_samples'], runner.test_dataloader.dataset)
