"""Images per second and core of the pre-training input pipeline, against mmpretrain's.

    python benchmarks/dataloader.py [--data DIR] [--rounds 15]

One process, one thread, whole path from file to collated batch. All pipelines read the same files
in turns, and the median over the rounds of the processor's time counts. mmpretrain's is that of its
own CAE config, with the official number of masked patches. It resizes without antialiasing, which is
another, cheaper operation; 'ours, pillow' is bit-exact with the official code, 'ours, torch' is what
configs/_base_/datasets/pretrain_imagenet.py uses; 'ours, scaled' lets the decoder shrink what is
large; 'ours, device' is what is left to do where the training's device decodes and resizes;
'ours, stored' reads the same pixels from PPM files, as tools/make_shards.py --pixels packs.
How far their values are from those of 'ours, torch', for the same boxes, is printed too.
"""
import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import mmcv.transforms
import mmpretrain.datasets.transforms  # noqa: F401
import numpy as np
import torch
from mmengine.dataset import default_collate
from mmpretrain.registry import TRANSFORMS
from PIL import Image

import cae_mm.transforms  # noqa: F401
from cae_mm.models.device_views import views_on_device
from cae_mm.transforms.loading import decode_rgb

MASK = dict(input_size=(14, 14), num_masking_patches=98, max_num_patches=None, min_num_patches=16)
VIEWS = dict(size=224, scale=(0.08, 1.0))


def ours(backend='torch', **loading):
    return [
        dict(type='LoadRGBImage', **loading),
        dict(type='TwoViewCrop', target_size=112, backend=backend, **VIEWS),
        dict(type='BlockMask', grid=14, num_masked=98),
        dict(type='PackViews')]


PIPELINES = {
    'mmpretrain': [
        dict(type=mmcv.transforms.LoadImageFromFile),  # mmcv's own, not ours of this name
        dict(type='RandomFlip', prob=0.5),
        dict(type='RandomResizedCropAndInterpolationWithTwoPic', second_size=112,
             interpolation='bicubic', second_interpolation='lanczos', **VIEWS),
        dict(type='BEiTMaskGenerator', **MASK),
        dict(type='PackInputs')],
    'ours, torch': ours(),
    'ours, scaled': ours(decode='scaled'),
    'ours, device': ours(decode='device'),
    'ours, stored': ours(),
    'ours, pillow': ours('pillow')}


def make_images(folder, count=64, size=(500, 375)):
    """Write JPEGs of ImageNet's usual size, cut from the photographs of scikit-learn."""
    from sklearn.datasets import load_sample_images
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    for number in range(count):
        photo = photographs[number % len(photographs)]
        left, top = 3 * number % (photo.width - 560), number % (photo.height - 420)
        cut = photo.crop((left, top, left + 560, top + 420))
        cut.resize(size, Image.Resampling.LANCZOS).save(folder / f'{number:03}.jpg', quality=92)


def run(transforms, paths, seed, stages):
    """Seconds for one pass over the files, and the batch; adds each stage's seconds to ``stages``."""
    random.seed(seed)
    torch.manual_seed(seed)
    samples, start = [], time.process_time()
    for path in paths:
        sample = {'img_path': path, 'sample_idx': 0}
        for name, transform in transforms:
            before = time.process_time()
            sample = transform(sample)
            stages[name] = stages.get(name, 0) + time.process_time() - before
        samples.append(sample)
    before = time.process_time()
    batch = default_collate(samples)
    stages['collate'] = stages.get('collate', 0) + time.process_time() - before
    return time.process_time() - start, batch['inputs']


def difference(batch, other):
    """How far the views of two batches are from each other, in words."""
    if isinstance(batch['images'], list):
        batch = views_on_device(batch['images'], torch.device('cpu'))
    levels = torch.cat([(batch[key].short() - other[key].short()).abs().flatten()
                        for key in ('images', 'target_images')])
    return f'{(levels <= 2).float().mean():.2%} within two levels, {levels.float().mean():.2f} on average'


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of JPEGs (default: makes its own)')
    parser.add_argument('--rounds', type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)

    with tempfile.TemporaryDirectory() as folder:
        if args.data is None:
            make_images(Path(folder))
        root = args.data or Path(folder)
        paths = [path for path in sorted(root.rglob('*')) if path.suffix.lower() in ('.jpg', '.jpeg')][:256]
        if not paths:
            parser.error(f'--data {root}: there are no .jpg or .jpeg files in it')
        contents = [path.read_bytes() for path in paths]
        stored = [f'{folder}/{number}.ppm' for number in range(len(paths))]
        for path, content in zip(stored, contents, strict=True):
            Image.fromarray(image := decode_rgb(content)).save(path)
        print(f'{len(paths)} images of {np.mean([*map(len, contents)]) / 1000:.0f} kB, the last '
              f'{image.shape[1]}x{image.shape[0]}, {args.rounds} rounds')

        steps = {name: map(TRANSFORMS.build, pipeline) for name, pipeline in PIPELINES.items()}
        built = {name: [(type(step).__name__, step) for step in found] for name, found in steps.items()}
        files = {name: stored if name == 'ours, stored' else [*map(str, paths)] for name in built}
        seconds = {name: [] for name in built}
        stages = {name: {} for name in built}
        # To warm up, the files' cache and lazy imports, and to compare.
        batches = {name: run(built[name], files[name], 0, {})[1] for name in built}
        for seed in range(args.rounds):
            for name in built:
                seconds[name].append(run(built[name], files[name], seed, stages[name])[0])

    reference = statistics.median(seconds['mmpretrain'])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f'\n{name}: {len(paths) / median:.0f} images/s, {reference / median:.2f}x '
              f'(fastest round {len(paths) / min(times):.0f})')
        if name != 'mmpretrain':
            print(f'  {difference(batches[name], batches["ours, torch"])}')
        for stage, total in stages[name].items():
            print(f'  {stage:45} {1e3 * total / len(paths) / args.rounds:.3f} ms')


if __name__ == '__main__':
    main()
