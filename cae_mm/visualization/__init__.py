"""Figures of a training: loss curves, reconstructions, and a report that holds them."""
from cae_mm.visualization.curves import draw_curves
from cae_mm.visualization.reconstruction import Reconstruction, draw, reconstruct
from cae_mm.visualization.report import Section, write_report

__all__ = ['Reconstruction', 'Section', 'draw', 'draw_curves', 'reconstruct', 'write_report']
