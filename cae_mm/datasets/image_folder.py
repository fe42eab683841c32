"""The pictures of a folder."""
import os
from collections import Counter

from mmengine.fileio import list_dir_or_file
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from cae_mm.disk import SUFFIXES, log_used, named, suffix_of

from .few import listed, shots_of
from .file_lists import kept_lists


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmpretrain's CustomDataset of more kinds of files, which logs how many it uses and ignores.

    The list of files is kept for the next start, see :func:`cae_mm.datasets.file_lists.kept_lists`.

    Args:
        shots (int, optional): take so many images of each class, see ``shots_of``.
        shots_seed (int): of their choice.
        subset (str, optional): take those that this file names, see ``listed``.
        kwargs: those of CustomDataset.

    Raises:
        FileNotFoundError, ValueError: see ``listed`` and ``shots_of``; for shots without labels, or a list
            that leaves a class out.
    """

    def __init__(self, *args, extensions=SUFFIXES, shots=None, shots_seed=0, subset=None, **kwargs):
        self.ignored = Counter()
        self.shots, self.shots_seed, self.subset = shots, shots_seed, subset
        super().__init__(*args, extensions=extensions, **kwargs)

    def _find_samples(self):
        self.ignored.clear()
        with kept_lists(self.img_prefix):
            samples = super()._find_samples()
            if self.with_label:
                beside = len([*list_dir_or_file(self.img_prefix, list_dir=False)])
        if self.with_label:
            self.empty_classes = self.folder_to_idx.keys() - {name.split(os.sep)[0] for name, _ in samples}
            self.ignored += Counter({'beside the folders of the classes': beside})
        log_used(self.img_prefix, len(samples), self.ignored)
        return self._few(samples) if self.subset or self.shots else samples

    def _few(self, samples):
        few = listed(samples, self.subset) if self.subset else samples
        if self.with_label and (lost := set(range(len(self.CLASSES))) - {label for _, label in few}):
            raise ValueError(f'subset={self.subset} has no image of '
                             f'{named(self.CLASSES[label] for label in sorted(lost))}')
        if self.shots and not self.with_label:
            raise ValueError(f'shots={self.shots} of each class, and these images have none: take subset')
        few = shots_of(few, self.shots, self.shots_seed) if self.shots else few
        print_log(f'{self.img_prefix}: {len(few)} of these {len(samples)} images are taken', 'current')
        return few

    def is_valid_file(self, filename):
        """Whether a file is taken for a picture; others are counted."""
        valid = super().is_valid_file(filename)
        if not valid:
            self.ignored[suffix_of(filename)] += 1
        return valid
