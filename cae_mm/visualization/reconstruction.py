"""Pictures of what the model paints under the mask."""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from mmpretrain.registry import TRANSFORMS
from torch import Tensor, nn

from cae_mm.datasets.annotations import leaf_datasets
from cae_mm.evaluation.features import evaluating
from cae_mm.models.cae import split_mask

GREY = 0.5  # of masked patches


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
                mask: Tensor) -> dict[str, Tensor]:
    """Mask images, predict what is under the mask, and decode the prediction: pictures by their titles.

    Of a ``ContextAutoencoder`` and its data preprocessor, images (B, 3, H, W) uint8 RGB, and a mask (B, N)
    bool, True = masked. Pictures (B, 3, h, w) in [0, 1] have the size of the target generator's view.
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
    return {
        'image': image,
        'what the encoder sees': image * (1 - hidden) + GREY * hidden,
        'prediction, decoded': prediction,  # of all targets: true ones where visible
        'prediction in the image': prediction * hidden + image * (1 - hidden),
        'true targets, decoded': upper_bound}  # what the target generator can show at best


def in_rows(pictures: dict[str, Tensor]) -> tuple[list[str], list[tuple]]:
    """For ``draw_rows``: a row per image, a column per kind of picture."""
    columns = [picture.permute(0, 2, 3, 1) for picture in pictures.values()]
    return [*pictures], [*zip(*columns, strict=True)]
