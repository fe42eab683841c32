"""Which patches are masked: blocks (BEiT's algorithm as CAE runs it) or single patches."""
import math
import random

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.utils import to_2tuple
from mmpretrain.registry import TRANSFORMS

# Rectangles until a mask is given up. A 14x14 grid takes some 20 for half of its patches, 200 for all
# but one; settings that hardly any rectangle fits took up to 8,300.
MOST_DRAWS = 100_000


class Mask(BaseTransform):
    """Base of the mask generators: checks the count and writes ``mask``, (N,) bool, True = masked.

    Args:
        grid (int | tuple[int, int]): Rows and columns of patches; N is their product.
        num_masked (int): Masked patches in every image, 1 to N - 1.

    Raises:
        ValueError: For a count outside 1..N-1.
    """

    def __init__(self, grid, num_masked):
        self.grid, self.num_masked = to_2tuple(grid), num_masked
        patches = self.grid[0] * self.grid[1]
        if not 1 <= num_masked <= patches - 1:
            raise ValueError(
                f'num_masked={num_masked} of N={patches} patches (grid {self.grid[0]}x'
                f'{self.grid[1]}): choose 1 to {patches - 1}, so that something is masked and '
                f'something visible; the usual half is {patches // 2}')

    def transform(self, results):
        """Add ``mask`` to the results."""
        results['mask'] = torch.from_numpy(self.sample().ravel())
        return results


@TRANSFORMS.register_module()
class BlockMask(Mask):
    """Union of random rectangles with exactly ``num_masked`` patches.

    Rectangles are drawn from Python's ``random`` in the official order: area, log aspect, top,
    left. One that would mask too many patches is rejected, until the count is reached.

    Args:
        grid (int | tuple[int, int]): Rows and columns of patches.
        num_masked (int): Masked patches in every image.
        min_per_block (int): Smallest area drawn for a rectangle, in patches. When fewer remain to
            be masked, areas are drawn between what remains and this.
        max_per_block (int, optional): Most patches one rectangle may add; None for ``num_masked``.
        aspect (tuple[float, float]): Height by width of a rectangle.

    Raises:
        ValueError: For an impossible count, or by ``sample``, when no rectangle completes the mask.
    """

    def __init__(self, grid, num_masked, min_per_block=16, max_per_block=None,
                 aspect=(0.3, 1 / 0.3)):
        super().__init__(grid, num_masked)
        self.min_per_block, self.max_per_block = min_per_block, max_per_block or num_masked
        self.log_aspect = math.log(aspect[0]), math.log(aspect[1])

    def sample(self):
        """Draw one mask: (rows, columns) bool array."""
        rows, columns = self.grid
        mask, left = np.zeros(self.grid, bool), self.num_masked
        for _ in range(MOST_DRAWS):
            limit = min(left, self.max_per_block)
            area = random.uniform(self.min_per_block, limit)
            aspect = math.exp(random.uniform(*self.log_aspect))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if w >= columns or h >= rows:
                continue
            y, x = random.randint(0, rows - h), random.randint(0, columns - w)
            block = mask[y:y + h, x:x + w]
            added = h * w - np.count_nonzero(block)
            if 0 < added <= limit:
                block[...] = True
                left -= added
                if not left:
                    return mask
        low, high = map(math.exp, self.log_aspect)
        raise ValueError(
            f'{MOST_DRAWS} blocks of {self.min_per_block} to {self.max_per_block} patches and height:width '
            f'{low:.2g} to {high:.2g}, within a {rows}x{columns} grid, did not mask exactly '
            f'{self.num_masked}: lower min_per_block or num_masked, widen aspect, or use RandomMask')


@TRANSFORMS.register_module()
class RandomMask(Mask):
    """Mask ``num_masked`` patches drawn without preference, by numpy's global generator."""

    def sample(self):
        """Draw one mask: (rows, columns) bool array."""
        mask = np.arange(self.grid[0] * self.grid[1]) >= math.prod(self.grid) - self.num_masked
        np.random.shuffle(mask)
        return mask.reshape(self.grid)
