"""What is decoded: targets made of an image, frozen, and painted again."""
from abc import abstractmethod

from mmengine.model import BaseModule, initialize
from torch import Tensor, nn


class TargetGenerator(BaseModule):
    """Makes what the decoder predicts: for each patch a code, or float values of any width.

    A subclass sets ``num_outputs`` (int), K codes or the width of float targets, and ``stride`` (int), the
    side in pixels of what one target stands for. One with weights says in ``advice`` where to get them, and
    in its constructor, with ``load``, whether it has ``loaded`` them.

    Args:
        init_cfg (dict, optional): the checkpoint, ``dict(type='Pretrained', checkpoint=PATH_OR_URL)``; a
            ``sha256`` in it is compared with the file's. Loaded whole or not at all.
        allow_random (bool): keep random weights, for tests and benchmarks; nothing is loaded.
        **kwargs: arguments of the other base class, where there is one.
    """
    num_outputs: int
    stride: int
    has_cls = False  # whether it has a target for the class token, at position -1
    advice = ''

    def __init__(self, init_cfg: dict | None = None, allow_random: bool = False, **kwargs):
        super().__init__(init_cfg=init_cfg, **kwargs)
        self.allow_random, self.loaded, self.frozen = allow_random, False, False

    def load(self, module: nn.Module, init_cfg: dict | None) -> bool:
        """Fill a part, or all, from the checkpoint of ``init_cfg``; return whether there was one.

        A FileNotFoundError says where to get the file; a ValueError when it is not safe, or does not fit.
        """
        if not init_cfg or self.allow_random:
            return False
        if init_cfg.get('type', 'Pretrained') == 'Pretrained':
            # mmengine's own only warns of what is missing.
            init_cfg = dict(init_cfg, type='PretrainedTokenizer')
        try:
            initialize(module, init_cfg)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{error}. {self.advice}') from error
        return True

    def freeze(self) -> None:
        """Keep the weights, which must not be random unless that is allowed, and the evaluation mode."""
        name, ready = type(self).__name__, self.loaded or self.allow_random
        if not ready and next(self.parameters(), None) is not None:
            raise FileNotFoundError(f'{name} as target generator has random weights: no checkpoint is '
                                    f'named. {self.advice}')
        if not ready and self.init_cfg:
            raise ValueError(f'{name} has no weights that init_cfg={dict(self.init_cfg)} could be for: '
                             'leave it, or tokenizer=PATH on the command line, out')
        self.frozen = True
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True):
        """Set the mode; what is frozen stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def init_weights(self) -> None:
        """Keep the weights of the constructor, which are initialised or loaded already."""

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of targets of an image of ``height`` x ``width`` pixels.

        Raises:
            ValueError: when a side is not a multiple of the stride.
        """
        if height % self.stride or width % self.stride:
            raise ValueError(f'{type(self).__name__} makes a target of {self.stride} x {self.stride} '
                             f'pixels, and {height} x {width} is no multiple of that: change the size of '
                             'the image that it sees')
        return height // self.stride, width // self.stride

    @abstractmethod
    def get_targets(self, target_images: Tensor, masked: Tensor) -> Tensor:
        """Targets at chosen positions, without gradients.

        Args:
            target_images (Tensor): (B, 3, h, w) in [0, 1].
            masked (Tensor): (B, M) int64 positions, row-major.

        Returns:
            Tensor: codes (B, M) int64, or values (B, M, K) of a floating type.
        """

    def reconstruct(self, predictions: Tensor, target_images: Tensor) -> Tensor:
        """Picture (B, 3, h, w) in [0, 1] of the decoder's outputs (B, N, K) for all positions.

        ``target_images`` (B, 3, h, w) in [0, 1] are what the true targets are made of. A ValueError when
        these targets cannot be painted.
        """
        raise ValueError(f'there is no picture of the targets of {type(self).__name__}: only codes and '
                         'pixels can be painted')
