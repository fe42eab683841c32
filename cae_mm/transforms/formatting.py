"""The last step of a pre-training pipeline."""
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS

NAMES = {'img': 'images', 'target_img': 'target_images', 'mask': 'mask'}


@TRANSFORMS.register_module()
class PackViews(BaseTransform):
    """Keep what the pre-training model reads, and nothing else.

    The result is ``{'inputs': {'images': (3, H, W) uint8, 'target_images': (3, h, w) uint8,
    'mask': (N,) bool}}``, without the last two where the pipeline made none. Normalisation is left
    to the device: a worker then sends a quarter of the bytes. What ``TwoViewCrop`` leaves to the device
    is in place of both views, under ``images``.
    """

    def transform(self, results):
        """Build the dictionary described above."""
        return {'inputs': {name: results[key] for key, name in NAMES.items() if key in results}}
