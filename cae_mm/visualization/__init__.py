"""Figures: a training's curves, reconstructions, attention and features; a report that holds them."""
from cae_mm.visualization.attention import class_attention, load_probe, look, probe_attention
from cae_mm.visualization.curves import draw_curves
from cae_mm.visualization.features import patch_features, pca_colours
from cae_mm.visualization.figure import WholeView, choose_images, draw_rows, load_image
from cae_mm.visualization.pictures_hook import PicturesHook
from cae_mm.visualization.predictions import DensePredictor
from cae_mm.visualization.reconstruction import draw_masks, in_rows, reconstruct
from cae_mm.visualization.report import Section, write_report

__all__ = [
    'DensePredictor', 'PicturesHook', 'Section', 'WholeView', 'choose_images', 'class_attention',
    'draw_curves', 'draw_masks', 'draw_rows', 'in_rows', 'load_image', 'load_probe', 'look',
    'patch_features', 'pca_colours', 'probe_attention', 'reconstruct', 'write_report'
]
