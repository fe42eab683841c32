#!/usr/bin/env python
"""Draw docs/images/method.png: python docs/images/method.py, in an environment with scikit-image."""
import random
from pathlib import Path

import numpy as np
import skimage.data
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from skimage.transform import resize

from cae_mm.transforms import BlockMask

BLUE, GREEN, ORANGE, GREY = '#cfe2f7', '#d4edd2', '#fbe0c3', '#e6e6e6'
# Left, bottom, width, height, colour, text.
BOXES = [
    (0.2, 6.15, 3.6, 0.8, BLUE, 'encoder\na plain ViT'),
    (6.2, 6.15, 3.6, 0.8, BLUE, 'the same encoder\nno gradient'),
    (0.2, 4.0, 3.6, 1.15, GREEN, 'regressor\na query per masked patch\nattends to visible latents'),
    (0.2, 1.9, 3.6, 0.8, ORANGE, 'decoder\nsees no visible patch'),
    (6.2, 1.9, 3.6, 0.8, GREY, 'tokenizer, frozen\ncodes of the patches'),
]
ARROWS = [((2, 7.35), (2, 6.98)), ((8, 7.35), (8, 6.98)), ((2, 6.12), (2, 5.18)), ((2, 3.97), (2, 2.73)),
          ((8, 6.12), (8, 4.85)), ((2, 1.87), (2, 1.13)), ((8, 1.87), (8, 1.13))]
WORDS = [  # centre, text
    (2.95, 5.65, '(B, V, C)'), (2.95, 3.35, '(B, M, C)'), (2.95, 1.5, '(B, M, K)'),
    (8.95, 5.5, '(B, M, C)'), (8.75, 1.5, '(B, M)'),
    (2, 7.5, 'V visible patches'), (8, 7.5, 'M masked patches')]


def main():
    picture = resize(skimage.data.chelsea()[:, 75:375], (224, 224))
    random.seed(0)
    mask = BlockMask(grid=14, num_masked=98, min_per_block=16).sample()
    hidden = np.kron(mask, np.ones((16, 16), bool))
    figure = Figure(figsize=(5.4, 6.6), dpi=150, facecolor='white')
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 10), ylim=(0.3, 12.5))
    axes.axis('off')
    for left, image in ((0.2, np.where(hidden[..., None], 0.85, picture)),
                        (6.2, np.where(hidden[..., None], picture, 0.85))):
        axes.imshow(image, extent=(left, left + 3.6, 7.75, 11.35), aspect='auto')
    axes.text(5, 11.95, 'one image, divided by a mask of blocks', ha='center', va='center', fontsize=12)
    for left, bottom, width, height, colour, text in BOXES:
        axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle='round,pad=0.02',
                                      facecolor=colour, edgecolor='#444444'))
        axes.text(left + width / 2, bottom + height / 2, text, ha='center', va='center', fontsize=10)
    for start, end in ARROWS:
        axes.annotate('', end, start, arrowprops=dict(arrowstyle='-|>', color='#444444'))
    for x, y, text in WORDS:
        axes.text(x, y, text, ha='center', va='center', fontsize=10, color='#444444')
    for y, text in ((4.57, 'alignment\nmean squared error'), (0.8, 'reconstruction\ncross-entropy')):
        axes.annotate('', (3.9, y), (6.1, y), arrowprops=dict(arrowstyle='<|-|>', color='#b03030'))
        axes.text(5, y + 0.42, text, ha='center', va='center', fontsize=8, color='#b03030')
    for x, y, text in ((8, 4.57, 'true latents'), (2, 0.8, 'logits'), (8, 0.8, 'true codes')):
        axes.text(x, y, text, ha='center', va='center', fontsize=11)
    figure.savefig(Path(__file__).with_suffix('.png'))


if __name__ == '__main__':
    main()
