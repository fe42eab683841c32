"""The pictures of a folder."""
import os
from collections import Counter

from mmengine.fileio import list_dir_or_file
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from cae_mm.disk import SUFFIXES, log_used, suffix_of

from .file_lists import kept_lists


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmpretrain's CustomDataset of more kinds of files, which logs how many it uses and ignores.

    The list of files is kept for the next start, see :func:`cae_mm.datasets.file_lists.kept_lists`.

    Args: those of CustomDataset.
    """

    def __init__(self, *args, extensions=SUFFIXES, **kwargs):
        self.ignored = Counter()
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
        return samples

    def is_valid_file(self, filename):
        """Whether a file is taken for a picture; others are counted."""
        valid = super().is_valid_file(filename)
        if not valid:
            self.ignored[suffix_of(filename)] += 1
        return valid
