"""From a collated uint8 batch to what the models read, on the device."""
import torch
from mmengine.model import BaseDataPreprocessor
from mmpretrain.registry import MODELS

from cae_mm.models.device_views import views_on_device


@MODELS.register_module()
class CAEDataPreprocessor(BaseDataPreprocessor):
    """Move a batch to the device and normalise it there.

    Args:
        mean, std (Sequence[float]): of R, G and B, on the scale of 0 to 255.
        non_blocking (bool): whether the copy overlaps with computing; needs pinned memory.
    """

    def __init__(self, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375),
                 non_blocking=True):
        super().__init__(non_blocking)
        self.register_buffer('mean', torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(3, 1, 1), persistent=False)

    def normalise(self, images):
        """Standardise (B, 3, H, W) RGB images of 0 to 255 to float32."""
        return (images.float() - self.mean) / self.std

    def denormalise(self, images):
        """Undo ``normalise``: (B, 3, H, W) RGB in [0, 1]."""
        return (images * self.std + self.mean) / 255

    def forward(self, data, training=False):
        """Prepare one batch.

        Args:
            data (dict): ``inputs`` is a (B, 3, H, W) uint8 RGB tensor, a list of (3, H, W), or a dict of
                ``images`` and, optionally, ``target_images`` (B, 3, h, w) and ``mask`` (B, N) bool. Of
                ``decode='device'`` in ``LoadRGBImage`` a list of files and boxes is in their place.
            training (bool): not used; mmengine passes it.

        Returns:
            dict: ``inputs`` as above, ``images`` normalised, ``target_images`` float32 in [0, 1] (the
                images where there is no second view), ``mask`` left on the CPU; and ``data_samples`` as
                they came.
        """
        inputs = data['inputs']
        if isinstance(inputs, dict):
            if isinstance(inputs['images'], list):
                with torch.autocast(self.device.type, enabled=False):
                    inputs = dict(inputs, **views_on_device(inputs['images'], self.device))
            # The mask stays behind: its indices are made on the CPU, where nothing waits for them.
            views = self.cast_data({k: v for k, v in inputs.items() if k != 'mask'})
            target = views.get('target_images', views['images'])
            inputs = dict(inputs, images=self.normalise(views['images']),
                          target_images=target.float() / 255)
        else:
            images = torch.stack(inputs) if isinstance(inputs, (list, tuple)) else inputs
            inputs = self.normalise(self.cast_data(images))
        return {'inputs': inputs, 'data_samples': data.get('data_samples')}
