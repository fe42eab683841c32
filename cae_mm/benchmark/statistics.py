"""What differs by more than chance: paired bootstrap over the images of a validation set."""
from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLES, LEVEL = 2000, 95.  # percent


def resampled(right: Mapping[str, Sequence[str]], seed: int = 0) -> dict[str, np.ndarray]:
    """(RESAMPLES,) percent of the same resampled images, of each model's digits, the mean of its seeds."""
    shares = {label: np.mean([np.frombuffer(digits.encode(), np.uint8) - ord('0') for digits in seeds], 0)
              for label, seeds in right.items()}
    numbers = {label: len(share) for label, share in shares.items()}
    if len(set(numbers.values())) > 1:
        raise ValueError(f'models with other numbers of images cannot be compared: {numbers}')
    images, rng = next(iter(numbers.values())), np.random.default_rng(seed)
    found = np.empty((RESAMPLES, len(shares)))
    columns = np.stack([*shares.values()], 1)
    for row in found:
        row[:] = 100 * columns[rng.integers(0, images, images)].mean(0)
    return dict(zip(shares, found.T, strict=True))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The bounds that ``LEVEL`` percent of the values lie within."""
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def not_worse(samples: Mapping[str, np.ndarray], best: str) -> set[str]:
    """The best model, and those whose difference to it has an interval that reaches zero."""
    return {label for label, values in samples.items()
            if label == best or interval(samples[best] - values)[0] <= 0}
