"""The pictures of a folder."""
from collections import Counter

from mmengine.fileio import list_dir_or_file
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from cae_mm.disk import SUFFIXES, log_used, suffix_of


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmpretrain's CustomDataset of more kinds of files, which logs how many it uses and ignores.

    Args: those of CustomDataset.
    """

    def __init__(self, *args, extensions=SUFFIXES, **kwargs):
        self.ignored = Counter()
        super().__init__(*args, extensions=extensions, **kwargs)

    def _find_samples(self):
        self.ignored.clear()
        samples = super()._find_samples()
        if self.with_label:
            beside = len([*list_dir_or_file(self.img_prefix, list_dir=False)])
            self.ignored += Counter({'beside the folders of the classes': beside})
        log_used(self.img_prefix, len(samples), self.ignored)
        return samples

    def is_valid_file(self, filename):
        """Whether a file is taken for a picture; others are counted."""
        valid = super().is_valid_file(filename)
        if not valid:
            self.ignored[suffix_of(filename)] += 1
        return valid
