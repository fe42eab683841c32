"""Pictures that cannot be read, told from samples that a pipeline leaves out on purpose."""
from collections.abc import Callable, Iterator

from mmengine.dataset import BaseDataset
from torch.utils.data import Dataset

from cae_mm.disk import printable

from .label_maps import read_labels


class UnreadableFile(Exception):
    """A picture cannot be read: ``reason`` is why, ``number`` its place among the guarded files."""

    def __init__(self, message, number=None, reason=''):
        super().__init__(message)  # alone it survives the way out of a worker
        self.number, self.reason = number, reason


class Reader:
    """A data set's pipeline that knows which of its failures are those to read the picture.

    Reading is what the pipeline does before there is an ``img``. None that a later step returns, as
    mmdet's and mmseg's do to leave a sample out, stays None, for which mmengine draws another sample.

    Args:
        dataset (BaseDataset): the data set, with its pipeline.
        first (int): number of its first file.
        report (Callable, optional): called with the :class:`UnreadableFile`, before the next file that
            can be read takes its place. None raises the error.
    """

    def __init__(self, dataset: BaseDataset, first: int = 0,
                 report: Callable[[UnreadableFile], None] | None = None):
        self.dataset, self.first, self.report = dataset, first, report
        self.transforms = dataset.pipeline.transforms

    def __call__(self, info: dict):
        """Run the pipeline on what is known of a file.

        Raises:
            UnreadableFile: when no file can be read, or nothing is to be reported.
            ValueError: when a picture has another size than its annotations, or its label map.
        """
        for number in range(1, len(self.dataset) + 1):
            try:
                sample, steps = self.read(info)
                break
            except UnreadableFile as error:
                if self.report is None or number == len(self.dataset):
                    raise
                self.report(error)
                info = self.dataset.get_data_info((info['sample_idx'] + 1) % len(self.dataset))
        for step in steps:
            sample = step(sample)
            if sample is None:
                break
        return sample

    def read(self, info: dict) -> tuple[dict, Iterator]:
        """Run the steps up to the picture; return what they give and the other steps."""
        steps, sample, expected = iter(self.transforms), info, {}
        if 'img_path' not in info:  # not a file
            return sample, steps
        for step in steps:
            try:
                sample = step(sample)
                if sample is not None and 'img' in sample:
                    expected = shapes_beside(info)
                    break
                reason = 'the reader returned nothing'
            except Exception as error:  # decoders raise nearly every type on a damaged file
                sample, reason = None, f'{type(error).__name__}: {error}'
            if sample is None:
                reason = info.get('load_error', reason)
                raise UnreadableFile(printable(f'{info["img_path"]} cannot be read ({reason})'),
                                     self.first + info['sample_idx'], reason)
        for what, (height, width) in expected.items():
            h, w = sample['img'].shape[:2]
            if (h, w) != (height, width):
                raise ValueError(printable(f'{info["img_path"]} has {w}x{h} pixels, its {what} '
                                           f'{width}x{height}'))
        return sample, steps


def shapes_beside(info: dict) -> dict[str, tuple[int, int]]:
    """Height and width that a picture must have, by its annotations and its label map, which is read.

    Args:
        info (dict): what mmdet's and mmseg's data sets know of the picture.

    Raises:
        ValueError: when the label map cannot be read.
    """
    shapes = {}
    if 'height' in info and 'width' in info:
        shapes['annotations'] = info['height'], info['width']
    if path := info.get('seg_map_path'):
        shapes[path] = read_labels(path).shape[:2]
    return shapes


def leaves(dataset: Dataset) -> Iterator[Dataset]:
    """The data sets that read files, without the wrappers around them, such as mmengine's."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for child in inner:
        if child is None:
            yield dataset
        else:
            yield from leaves(child)


def guard(dataset: Dataset, report: Callable | None = None) -> list[BaseDataset]:
    """Give each data set of files, of those inside of another too, a :class:`Reader`; return them."""
    found, first = [], 0
    for leaf in leaves(dataset):
        if isinstance(leaf, BaseDataset) and leaf not in found:
            leaf.pipeline = Reader(leaf, first, report)
            first += len(leaf)
            found.append(leaf)
    return found
