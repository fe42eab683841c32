"""A discrete VAE to train on one's own images, then the tokenizer of CAE."""
import math

import torch
import torch.nn.functional as F
from mmengine.dist import broadcast
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmpretrain.registry import MODELS
from torch import Tensor

from cae_mm.models.targets.dalle import DALLEDecoder, DALLEEncoder, Tokenizer, map_pixels

WINDOW = 100  # iterations over which the use of the codes is logged


@MODELS.register_module()
class DiscreteVAE(Tokenizer, BaseModel):
    """Image to a grid of codes and back, trained through the Gumbel-softmax relaxation.

    As an algorithm it minimises reconstruction plus regulariser; as a target generator it gives
    the likeliest codes, with a checkpoint of its own training as ``init_cfg``.

    Args:
        num_codes (int): codes K.
        hidden_dims (int): width n of the first group, see :class:`DALLEEncoder`.
        code_dims (int): width of a code's embedding in the decoder.
        num_groups, blocks_per_group, stem_stride: see :class:`DALLEEncoder`.
        temperature (tuple[float, float]): of the Gumbel-softmax at the start and after annealing.
        anneal (int | float): iterations of the exponential annealing, or, below or equal to 1.0 as
            float, their share of the run.
        reconstruction (str): 'mse' or 'logit_laplace' (DALL-E's likelihood).
        regulariser (str): 'kl': divergence of each position's distribution from the uniform one;
            'usage': divergence of the batch's mean distribution from it, which asks for all codes
            to be used and leaves every position free to be certain.
        weight (float): of the regulariser, in nats, against the reconstruction per pixel value.
        sharpness (float): standard deviation, over the codes, of a position's logits when training
            starts. The first batch makes each code's logit the nearness to one of its features,
            since from random logits most codes are never chosen and never learn. 0: random.
        dtype (str): see :class:`Tokenizer`.
        data_preprocessor (dict, optional): gives ``target_images`` in [0, 1].
        allow_random, init_cfg: see :class:`TargetGenerator`.

    Raises:
        FileNotFoundError, ValueError: when the checkpoint is missing, not readable or does not fit.

    Source: "Zero-Shot Text-to-Image Generation", section 2.1 and appendix A.
    """
    advice = (
        'Train a tokenizer with tools/train.py configs/tokenizer/dvae_imagenet.py (or another config of '
        'that directory) and give its checkpoint, with --cfg-options tokenizer=PATH or as init_cfg=dict('
        'type="Pretrained", checkpoint=PATH) of the target generator. allow_random=True accepts random '
        'weights, for tests and benchmarks only.')

    def __init__(self, num_codes: int = 8192, hidden_dims: int = 256, code_dims: int = 128,
                 num_groups: int = 4, blocks_per_group: int = 2, stem_stride: int = 1,
                 temperature: tuple[float, float] = (1.0, 1 / 16), anneal: int | float = 0.5,
                 reconstruction: str = 'mse', regulariser: str = 'usage', weight: float = 0.01,
                 sharpness: float = 30.0, dtype: str = 'float16', allow_random: bool = False,
                 data_preprocessor: dict | None = None, init_cfg: dict | None = None):
        for name, value, known in (
                ('reconstruction', reconstruction, ('mse', 'logit_laplace')),
                ('regulariser', regulariser, ('kl', 'usage'))):
            if value not in known:
                raise ValueError(f'{name}={value!r} is unknown: choose one of {known}')
        sizes = dict(num_codes=num_codes, hidden_dims=hidden_dims, num_groups=num_groups,
                     blocks_per_group=blocks_per_group, stem_stride=stem_stride)
        channels = 6 if reconstruction == 'logit_laplace' else 3
        super().__init__(
            DALLEEncoder(**sizes), DALLEDecoder(**sizes, code_dims=code_dims, out_channels=channels), dtype,
            allow_random=allow_random, init_cfg=init_cfg, data_preprocessor=data_preprocessor)
        self.temperature, self.anneal = temperature, anneal
        self.reconstruction, self.regulariser, self.weight = reconstruction, regulariser, weight
        self.sharpness, self.codes_placed = sharpness, not sharpness
        # Buffers, so that a resumed run goes on where it stopped, and tensors, so that no iteration
        # makes the GPU wait for the host.
        self.register_buffer('step', torch.zeros(()))
        self.register_buffer('last_used', torch.full((num_codes,), -float(WINDOW)))
        self.register_buffer('frequency', torch.full((num_codes,), 1 / num_codes))
        self.loaded = self.load(self, init_cfg)

    def _load_from_state_dict(self, *args):
        """Load, by whichever loader, and note whether these weights have trained already."""
        super()._load_from_state_dict(*args)
        self.codes_placed = not self.sharpness or bool(self.step > 0)

    def paint(self, output: Tensor) -> Tensor:
        """Picture in [0, 1] of the decoder's output."""
        if self.reconstruction == 'logit_laplace':
            return super().paint(output)
        return (output + 0.5).clamp(0, 1)

    def forward(self, inputs: dict, data_samples=None, mode: str = 'loss'):
        """Give the losses ('loss'), the logits (B, K, h, w) ('tensor') or pictures ('predict')."""
        images = inputs['target_images']
        self.grid_size(*images.shape[2:])
        if mode == 'loss' and not self.codes_placed:
            self.place_codes(images)
        logits = self.encoder(map_pixels(images))
        if mode == 'loss':
            return self.loss(images, logits)
        if mode == 'tensor':
            return logits
        if mode == 'predict':
            return self.paint(self.decoder(logits.argmax(1)).float())
        raise ValueError(f'mode={mode!r} is unknown: choose loss, tensor or predict')

    def loss(self, images: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """Losses of images (B, 3, H, W) in [0, 1] with logits (B, K, h, w); advances the annealing.

        Returns:
            dict: ``loss_reconstruct``, ``loss_regularise``; ``code_usage``, percent of the codes that were
                some position's likeliest in the last 100 iterations; ``code_perplexity``, exp(entropy) of
                their frequencies over about as long; ``temperature``.
        """
        temperature = self.current_temperature()
        noise = -torch.empty_like(logits).exponential_().clamp(min=1e-20).log()
        codes = ((logits + noise) / temperature).softmax(1)
        ids = logits.detach().argmax(1)
        self.count(ids)
        entropy = -(self.frequency * self.frequency.clamp(min=1e-12).log()).sum()
        return dict(
            loss_reconstruct=self.reconstruction_loss(self.decoder(codes).float(), images),
            loss_regularise=self.weight * self.divergence(logits),
            code_usage=100 * (self.step - self.last_used < WINDOW).float().mean(),
            code_perplexity=entropy.exp(), temperature=temperature)

    @torch.no_grad()
    def place_codes(self, images: Tensor) -> None:
        """Before the first iteration, turn features of a batch into codes: logit = -distance^2 / 2."""
        with torch.autocast(images.device.type, enabled=False):
            features = self.encoder.features(map_pixels(images)).permute(0, 2, 3, 1).flatten(0, 2)
            mean = features.mean(0)
            picks = torch.randperm(len(features), device=images.device)
            picks = picks.repeat(-(-self.num_outputs // len(picks)))[:self.num_outputs]
            codes = features[picks] - mean
            bias = -codes.square().sum(1) / 2 - codes @ mean
            scale = self.sharpness / F.linear(features, codes, bias).std(1).mean()
            last = self.encoder.blocks.output.conv
            last.w.copy_((scale * codes)[:, :, None, None])
            last.b.copy_(scale * bias)
        for parameter in (last.w, last.b):  # all ranks begin with the codes of the first
            broadcast(parameter.data)
        self.codes_placed = True

    def divergence(self, logits: Tensor) -> Tensor:
        """Divergence from the uniform distribution in nats, of each position or of their mean."""
        logs = logits.log_softmax(1)
        if self.regulariser == 'usage':
            mean = logs.exp().mean((0, 2, 3))
            return (mean * (mean * self.num_outputs).clamp(min=1e-12).log()).sum()
        return (logs.exp() * logs).sum(1).mean() + math.log(self.num_outputs)

    def reconstruction_loss(self, output: Tensor, images: Tensor) -> Tensor:
        """Mean loss per pixel value of the decoder's output against images in [0, 1]."""
        if self.reconstruction == 'mse':
            return F.mse_loss(output, images - 0.5)
        mean, log_scale = output.chunk(2, dim=1)
        mapped = map_pixels(images)
        likelihood = -(mapped.logit() - mean).abs() * (-log_scale).exp() - log_scale
        return -(likelihood - (2 * mapped * (1 - mapped)).log()).mean()

    def current_temperature(self) -> Tensor:
        """Temperature of this iteration: exponential from the first to the second value."""
        steps = self.anneal
        if isinstance(steps, float):
            max_iters = MessageHub.get_current_instance().get_info('max_iters', None)
            if max_iters is None:
                raise ValueError(f'anneal={steps} is a share of a run, and there is none outside '
                                 'a runner: give a number of iterations as int')
            steps = max(1, steps * max_iters)
        start, end = self.temperature
        return start * (end / start) ** (self.step / steps).clamp(max=1)

    @torch.no_grad()
    def count(self, ids: Tensor) -> None:
        """Advance the iteration and remember which codes were used."""
        self.step += 1
        counts = torch.zeros_like(self.frequency).scatter_add_(
            0, ids.flatten(), torch.ones((), device=ids.device).expand(ids.numel()))
        self.last_used = torch.where(counts > 0, self.step, self.last_used)
        self.frequency.lerp_(counts / ids.numel(), 1 / WINDOW)
