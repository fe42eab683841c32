"""Which patches are masked: blocks (BEiT's algorithm as CAE runs it) or single patches."""
import math
import random

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.utils import to_2tuple
from mmpretrain.registry import TRANSFORMS


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
        ValueError: For an impossible count, or where no rectangle may ever complete the mask.
    """

    def __init__(self, grid, num_masked, min_per_block=16, max_per_block=None,
                 aspect=(0.3, 1 / 0.3)):
        super().__init__(grid, num_masked)
        self.min_per_block, self.max_per_block = min_per_block, max_per_block or num_masked
        self.log_aspect = math.log(aspect[0]), math.log(aspect[1])
        for left in range(1, num_masked + 1):
            if not self._can_add(min(left, self.max_per_block)):
                raise ValueError(
                    f'blocks of {min_per_block} to {self.max_per_block} patches and height:width '
                    f'{aspect[0]:.2g} to {aspect[1]:.2g}, shorter than the sides of the '
                    f'{self.grid[0]}x{self.grid[1]} grid, may never mask exactly {num_masked}: '
                    'lower min_per_block or num_masked, widen aspect, or use RandomMask')
        # A set of patches is an integer, patch n its bit n: rows[h] has bit 0 of h rows.
        self._rows = [sum(1 << (row * self.grid[1]) for row in range(h))
                      for h in range(self.grid[0])]

    def _can_add(self, limit):
        """Whether a rectangle of at most ``limit`` patches can be drawn when so many may be added.

        If so, sampling ends with probability one: every place is possible, so sooner or later it
        comes to lie on a visible patch, and then it cannot be rejected.
        """
        log_area = sorted(map(math.log, (self.min_per_block, limit)))
        for h in range(1, min(self.grid[0], limit + 1)):
            for w in range(1, min(self.grid[1], limit // h + 1)):
                # In x = log(height), y = log(width) rounding to (h, w) is a box, and what is drawn
                # is a rectangle in the axes x + y (area) and x - y (aspect).
                x, y = [(math.log(side - 0.5), math.log(side + 0.5)) for side in (h, w)]
                low = max(self.log_aspect[0], x[0] - y[1])
                high = min(self.log_aspect[1], x[1] - y[0])
                if low >= high:
                    continue
                nearest = min(max(x[0] - y[0], low), high)
                smallest = max(2 * x[0] - nearest, 2 * y[0] + nearest)
                farthest = min(max(x[1] - y[1], low), high)
                largest = min(2 * x[1] - farthest, 2 * y[1] + farthest)
                if smallest < log_area[1] and largest > log_area[0]:
                    return True
        return False

    def sample(self):
        """Draw one mask: (rows, columns) bool array."""
        rows, columns = self.grid
        mask = count = 0
        while count < self.num_masked:
            limit = min(self.num_masked - count, self.max_per_block)
            area = random.uniform(self.min_per_block, limit)
            aspect = math.exp(random.uniform(*self.log_aspect))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if w >= columns or h >= rows:
                continue
            top, left = random.randint(0, rows - h), random.randint(0, columns - w)
            block = ((1 << w) - 1) * self._rows[h] << (top * columns + left)
            added = (block & ~mask).bit_count()
            if 0 < added <= limit:
                mask |= block
                count += added
        packed = np.frombuffer(mask.to_bytes(-(-rows * columns // 8), 'little'), np.uint8)
        bits = np.unpackbits(packed, count=rows * columns, bitorder='little')
        return bits.view(bool).reshape(rows, columns)


@TRANSFORMS.register_module()
class RandomMask(Mask):
    """Mask ``num_masked`` patches drawn without preference, by numpy's global generator."""

    def sample(self):
        """Draw one mask: (rows, columns) bool array."""
        mask = np.arange(self.grid[0] * self.grid[1]) >= math.prod(self.grid) - self.num_masked
        np.random.shuffle(mask)
        return mask.reshape(self.grid)
