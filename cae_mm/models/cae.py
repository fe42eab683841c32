"""The Context Autoencoder: from visible patches, predict masked latents and decode them."""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass
class CAEOutput:
    """What one masked forward pass computes; shapes as in ``ContextAutoencoder``."""
    latent: Tensor  # (B, 1 + V, C) encoder output of the visible patches, class token first
    predicted: Tensor  # (B, M, D) regressed latents of the masked patches
    target: Tensor | None  # (B, M, D) the encoder's own latents of the masked patches, no gradient
    logits: Tensor  # (B, T, K) decoded: scores of codes, pixels, or features
    ids: Tensor  # (B, T) true codes, or (B, T, K) true pixels or features
    loss_reconstruct: Tensor  # scalar
    loss_align: Tensor | None  # scalar, weighted


def split_mask(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (B, N - M) of the visible and (B, M) of the masked patches, int64, ascending.

    Of a mask (B, N) bool, True = masked. A ValueError when rows differ in their number M of masked patches,
    or it is not in 1..N-1.
    """
    counts = mask.sum(1)
    num_masked, num_patches = int(counts[0]), mask.shape[1]
    if not 0 < num_masked < num_patches or not bool((counts == num_masked).all()):
        raise ValueError(f'masks with {sorted(set(counts.tolist()))} of {num_patches} patches masked: '
                         f'every image of a batch needs the same number, in 1..{num_patches - 1}')
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)
    return order[:, :-num_masked], order[:, -num_masked:]


@MODELS.register_module()
class ContextAutoencoder(BaseSelfSupervisor):
    """Context autoencoder for self-supervised representation learning (arXiv 2202.03026).

    B images, N patches, M masked and V visible in each; widths C (encoder) and D (decoder); K outputs for
    each of the T tokens that the head decodes. CAE v2 (arXiv 2211.09799) is the same with other parts: no
    alignment, a regressor without its norm, a ``TokenDecoder``, and a teacher's features as targets.

    Args:
        backbone (dict): the encoder, ``CAEViT``.
        neck (dict): ``LatentContextualRegressor``.
        head (dict): ``CAEDecoder`` or ``TokenDecoder``.
        target_generator (dict): ``DALLETokenizer``, ``DiscreteVAE``, ``PixelTarget`` or
            ``TeacherFeatures``.
        align_weight (float): weight of the alignment loss; 0 leaves its pass of the encoder out.
        paired (bool): in training, let each image serve its mask and the complement at once. Each of the
            two passes over visible patches gives the other's alignment target. Half of the patches must be
            masked. The loss is the mean of both.
        data_preprocessor (dict): ``CAEDataPreprocessor``.
        init_cfg (dict, optional): initialisation of the whole model.

    Raises:
        ValueError: when the parts do not fit together.
        FileNotFoundError: when the target generator is a tokenizer without weights.
    """

    def __init__(self, backbone, neck, head, target_generator, align_weight=2., paired=False,
                 data_preprocessor=None, init_cfg=None):
        super().__init__(
            backbone, neck, head, target_generator, init_cfg=init_cfg,
            data_preprocessor=data_preprocessor or dict(type='CAEDataPreprocessor'))
        self.align_weight, self.paired, self.num_visible = align_weight, paired, None
        self._check()
        self.target_generator.freeze()
        # The tokenizer is an input of the training, not a result: checkpoints do not carry it.
        self.register_state_dict_post_hook(_drop_tokenizer)
        self.register_load_state_dict_post_hook(_ignore_tokenizer)

    def _check(self):
        for what, left, right in (
                ('the encoder has {} channels, the neck expects in_dims={}',
                 self.backbone.embed_dims, self.neck.in_dims),
                ('the neck has {} channels, the head {}', self.neck.embed_dims, self.head.embed_dims),
                ('the target generator has {} outputs per patch, the head num_outputs={}',
                 self.target_generator.num_outputs, self.head.num_outputs),
                ('the encoder has {} positions, the neck {}: set its grid_size to the patch grid',
                 self.backbone.pos_embed.shape[1], self.neck.pos_embed.shape[1]),
                ('the encoder has {} positions, the head {}: set its grid_size to the patch grid',
                 self.backbone.pos_embed.shape[1], self.head.pos_embed.shape[1])):
            if left != right:
                raise ValueError(what.format(left, right) + ': make them equal')
        if self.head.decodes_cls and not self.target_generator.has_cls:
            raise ValueError(f'{type(self.head).__name__} predicts the class token too, for which '
                             f'{type(self.target_generator).__name__} has no target: take TeacherFeatures, '
                             'or a CAEDecoder')

    def predict_masked(self, images: Tensor, visible: Tensor, masked: Tensor) -> tuple[Tensor, ...]:
        """The method itself, a pure function of static shapes.

        Args:
            images (Tensor): (B, 3, H, W), normalised.
            visible, masked (Tensor): (B, V) and (B, M) int64.

        Returns:
            tuple[Tensor, ...]: latent (B, 1 + V, C), predicted and target (B, M, D; None without
                alignment), decoded (B, T, D), which the head's last layer makes outputs of.
        """
        latent = self.backbone.encode(images, visible)
        context = self.neck.project(latent)
        predicted = self.neck(context[:, 1:], visible, masked)
        decoded = self.head.decode(predicted, masked, context)
        target = None
        if self.align_weight and self._in_pairs:
            target = context[:, 1:].detach().roll(len(context) // 2, 0)
        elif self.align_weight:
            # The alignment branch is the encoder as it is now, so no second copy of it exists.
            with torch.no_grad():
                target = self.neck.project(self.backbone.encode(images, masked)[:, 1:])
        return latent, predicted, target, decoded

    def make_targets(self, target_images: Tensor, positions: Tensor) -> Tensor:
        """Targets of a step of training: ``get_targets`` of the target generator."""
        return self.target_generator.get_targets(target_images, positions)

    def step_losses(self, images: Tensor, visible: Tensor, masked: Tensor,
                    ids: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What a step of training needs of ``predict_masked``, without the outputs of the last layer.

        Args:
            images, visible, masked: as for ``predict_masked``.
            ids (Tensor): (B, T) codes, or (B, T, K) pixels or features.

        Returns:
            tuple: loss of reconstruction, weighted loss of alignment, and the share of codes that are
                right; None without alignment, or codes.
        """
        _, *latents = self.predict_masked(images, visible, masked)
        return self._losses(*latents, ids)

    def _losses(self, predicted, target, decoded, ids):
        align = (None if target is None
                 else self.align_weight * F.mse_loss(predicted.float(), target.float()))
        reconstruct, right = self.head.loss(decoded, ids)
        return reconstruct, align, right

    @property
    def _in_pairs(self) -> bool:
        return self.paired and self.training

    def forward_masked(self, images: Tensor, mask: Tensor,
                       target_images: Tensor | None = None) -> CAEOutput:
        """One masked pass with its losses.

        Args:
            images (Tensor): (B, 3, H, W), normalised.
            mask (Tensor): (B, N) bool, True = masked; on the CPU it costs no synchronisation.
            target_images (Tensor, optional): (B, 3, h, w) in [0, 1], the same crop for the target
                generator; the images themselves by default.

        Returns:
            CAEOutput: of 2B images, first by the masks, then by their complements, where ``paired`` in
                training.

        Raises:
            ValueError: for masks that do not fit, or a target grid that is not the patch grid.
        """
        *inputs, ids = self._prepare(images, mask, target_images)
        latent, *rest, decoded = self.predict_masked(*inputs)
        reconstruct, align, _ = self._losses(*rest, decoded, ids)
        return CAEOutput(latent, *rest, self.head.head(decoded), ids, reconstruct, align)

    def _prepare(self, images, mask, target_images=None):
        if target_images is None:
            target_images = self.data_preprocessor.denormalise(images)
        self._check_grids(images, mask, target_images)
        visible, masked = (i.to(images.device, non_blocking=True) for i in split_mask(mask))
        self.num_visible = visible.shape[1]
        pairs = [(visible, masked)]
        if self._in_pairs:
            if visible.shape != masked.shape:
                raise ValueError(f'{masked.shape[1]} of {mask.shape[1]} patches are masked: paired masks '
                                 'need half of them; change num_masked, or leave paired out')
            pairs.append((masked, visible))
            images = images.repeat(2, 1, 1, 1)
        positions = torch.cat([self.head.positions(*pair) for pair in pairs], 1)
        ids = self.make_targets(target_images, positions)
        ids = torch.cat(ids.chunk(len(pairs), 1))
        return images, *map(torch.cat, zip(*pairs, strict=True)), ids

    def _check_grids(self, images, mask, target_images):
        patches = self.backbone.grid(*images.shape[-2:])
        targets = self.target_generator.grid_size(*target_images.shape[-2:])
        if patches != self.backbone.grid_size or mask.shape[1] != patches[0] * patches[1]:
            raise ValueError(f'images of {patches[0]}x{patches[1]} patches and masks of {mask.shape[1]}, '
                             f'the encoder was built for {self.backbone.grid_size}: make img_size, the '
                             'crop and the mask grid agree')
        if tuple(targets) != patches:
            raise ValueError(f'the target generator makes {targets[0]}x{targets[1]} targets of a '
                             f'{target_images.shape[-2]}x{target_images.shape[-1]} view, the image has '
                             f'{patches[0]}x{patches[1]} patches: change the size of the second view')

    def loss(self, inputs: dict[str, Tensor], data_samples=None) -> dict[str, Tensor]:
        """Losses, by the arguments of ``forward_masked``, and the percentage of codes that are right."""
        reconstruct, align, right = self.step_losses(*self._prepare(**inputs))
        losses = dict(loss_reconstruct=reconstruct, loss_align=align,
                      accuracy=None if right is None else 100 * right)
        return {name: value for name, value in losses.items() if value is not None}

    def extract_feat(self, inputs: Tensor | dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Outputs of the backbone for whole images."""
        return self.backbone(inputs['images'] if isinstance(inputs, dict) else inputs)

    def flops_per_image(self) -> float:
        """FLOPs of training on one image, as for model FLOP utilisation: matrix multiplications only.

        Passes with gradients count three times, the alignment pass and the target generator once. As many
        patches are masked as in the last batch, half before it.
        """
        device, grid = self.backbone.pos_embed.device, self.backbone.grid_size
        patches, visible = grid[0] * grid[1], self.num_visible or grid[0] * grid[1] // 2
        visible, masked = torch.arange(patches, device=device)[None].split([visible, patches - visible], 1)
        images, view = (torch.zeros(1, 3, *(side * size for side in grid), device=device)
                        for size in (self.backbone.patch_size, self.target_generator.stride))

        def count(function, *args):
            with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
                function(*args)
            return counter.get_total_flops()

        step = count(lambda: self.head.head(self.predict_masked(images, visible, masked)[-1]))
        align = count(lambda: self.neck.project(self.backbone.encode(images, masked)[:, 1:])
                      ) if self.align_weight and not self._in_pairs else 0
        targets = count(self.target_generator.get_targets, view, self.head.positions(visible, masked))
        return 3 * (1 + self.paired) * (step - align) + align * (not self.paired) + targets

    def compile_forward(self, **options) -> None:
        """Compile ``make_targets`` and ``step_losses``, with these arguments of torch.compile."""
        options = {'dynamic': False, **options}
        self.make_targets = torch.compile(self.make_targets, **options)
        self.step_losses = torch.compile(self.step_losses, **options)


def _drop_tokenizer(module, state, prefix, local_metadata):
    for name in [n for n in state if n.startswith(f'{prefix}target_generator.')]:
        del state[name]


def _ignore_tokenizer(module, incompatible):
    incompatible.missing_keys[:] = [  # The model may be part of another, as of an average of its weights.
        name for name in incompatible.missing_keys if '.target_generator.' not in f'.{name}']
