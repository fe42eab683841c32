"""The report of files that cannot be read."""
import json
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop
from mmpretrain.registry import HOOKS

from cae_mm.atomic import write_atomically
from cae_mm.disk import named, printable

from .reader import guard
from .reproducible import ReproducibleDataset


@HOOKS.register_module()
class BadFilesHook(Hook):
    """Name the training files that were skipped, and stop when they are too many.

    In training, the ranks compare after every epoch what they found, and more than a tenth of the
    files is an error. After training the log counts them, and ``bad_files.json`` in the work
    directory gives path and reason of each. In evaluation a file that cannot be read is an error that
    names it: the numbers of fewer images would be others.

    Args:
        max_named (int): How many files the log itself names.
    """

    def __init__(self, max_named=20):
        self.max_named = max_named

    def before_run(self, runner):
        """Let the data of evaluations say which file cannot be read."""
        for loop in (runner._val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop):
                guard(loop.dataloader.dataset)

    def after_train_epoch(self, runner):
        """Exchange the bad files between the ranks and check their number."""
        dataset = runner.train_dataloader.dataset
        if isinstance(dataset, ReproducibleDataset):
            dataset.gather_bad_files()
            dataset.check_bad_files()

    def after_train(self, runner):
        """Log the summary and write the list."""
        dataset = runner.train_dataloader.dataset
        if not isinstance(dataset, ReproducibleDataset):
            return
        dataset.gather_bad_files()
        if not is_main_process():
            return
        bad = dataset.bad_files()
        if not bad:
            return
        listing = Path(runner.work_dir) / 'bad_files.json'
        write_atomically(printable(json.dumps(bad, indent=1, ensure_ascii=False)).encode(), listing)
        first = named((f'{path} ({reason})' for path, reason in bad.items()), self.max_named)
        runner.logger.warning(f'skipped {len(bad)} of {dataset.num_files} images: {first}. The whole list '
                              f'is in {listing}')
