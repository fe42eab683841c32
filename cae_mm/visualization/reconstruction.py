"""Pictures of what the model paints under the mask."""
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmpretrain.registry import TRANSFORMS
from torch import Tensor, nn

from cae_mm.datasets.annotations import leaf_datasets
from cae_mm.evaluation.features import evaluating
from cae_mm.models.cae import split_mask

GREY = 0.5  # of masked patches


@dataclass
class Reconstruction:
    """Pictures (B, 3, h, w) in [0, 1], in the order in which they are shown."""
    image: Tensor
    masked: Tensor
    prediction: Tensor  # all targets decoded: true ones where visible, predicted where masked
    pasted: Tensor  # the prediction at the masked patches, the image elsewhere
    upper_bound: Tensor  # all true targets decoded: what the target generator can show at best

    titles = {'image': 'image', 'masked': 'what the encoder sees',
              'prediction': 'prediction, decoded', 'pasted': 'prediction in the image',
              'upper_bound': 'true targets, decoded'}

    def rows(self) -> tuple[list[str], list[tuple[Tensor]]]:
        """For ``draw_rows``: a row per image, a column per kind of picture."""
        columns = [getattr(self, name).permute(0, 2, 3, 1) for name in self.titles]
        return [*self.titles.values()], [*zip(*columns, strict=True)]


def draw_masks(dataset: dict, number: int) -> Tensor:
    """Masks (number, N) bool by the transform that masks in the pipeline of a data set's settings."""
    steps = next(leaf_datasets(dataset)).pipeline
    mask = TRANSFORMS.build(next(step for step in steps if 'Mask' in step['type']))
    return torch.stack([mask({})['mask'] for _ in range(number)])


def second_view(model: nn.Module, images: Tensor) -> Tensor:
    """Resize (B, 3, H, W) in [0, 1] so that its targets lie on the patch grid of the encoder."""
    size = [model.target_generator.stride * side for side in model.backbone.grid(*images.shape[-2:])]
    if size == list(images.shape[-2:]):
        return images
    return F.interpolate(images, size, mode='bicubic', antialias=True).clamp(0, 1)


@torch.no_grad()
def reconstruct(model: nn.Module, preprocess: Callable, images: Tensor,
                mask: Tensor) -> Reconstruction:
    """Mask images, predict what is under the mask, and decode the prediction to pictures.

    Of a ``ContextAutoencoder`` and its data preprocessor, images (B, 3, H, W) uint8 RGB, and a mask (B, N)
    bool, True = masked. The pictures have the size of the target generator's view.
    """
    views = preprocess({'inputs': {'images': images}})['inputs']
    inputs, target_images = views['images'], second_view(model, views['target_images'])
    _, masked = split_mask(mask)
    masked = masked.to(inputs.device)
    everything = torch.arange(mask.shape[1], device=inputs.device).expand(len(mask), -1)
    with evaluating(model):
        logits = model.forward_masked(inputs, mask, target_images).logits.float()
        targets = model.target_generator.get_targets(target_images, everything)
        if not targets.is_floating_point():
            targets = F.one_hot(targets, logits.shape[-1]).float()
        mixed = targets.scatter(1, masked[..., None].expand_as(logits), logits)
        prediction, upper_bound = (
            model.target_generator.reconstruct(outputs, target_images).cpu()
            for outputs in (mixed, targets))
    image = target_images.cpu()
    rows, columns = model.backbone.grid(*images.shape[-2:])
    hidden = F.interpolate(mask.cpu().view(-1, 1, rows, columns).float(), image.shape[-2:])
    return Reconstruction(image, image * (1 - hidden) + GREY * hidden, prediction,
                          prediction * hidden + image * (1 - hidden), upper_bound)
