"""The DALL-E discrete VAE: its networks, and its encoder as the tokenizer of CAE."""
from collections import OrderedDict

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from cae_mm.models.cross_entropy import rows_at_once
from cae_mm.models.layers import gather_tokens
from cae_mm.models.targets.base import TargetGenerator


def map_pixels(images: Tensor) -> Tensor:
    """Map [0, 1] to [0.1, 0.9], where the logit-Laplace likelihood is finite (DALL-E, A.3)."""
    return 0.8 * images + 0.1


def unmap_pixels(mapped: Tensor) -> Tensor:
    """Invert :func:`map_pixels`, clamped to [0, 1]."""
    return ((mapped - 0.1) / 0.8).clamp(0, 1)


class Conv(nn.Module):
    """Convolution with DALL-E's parameter names w and b, padded to keep the size at stride 1."""

    def __init__(self, in_dims: int, out_dims: int, kernel: int, stride: int = 1):
        super().__init__()
        self.stride, self.padding = stride, (kernel - 1) // 2
        weight = torch.randn(out_dims, in_dims, kernel, kernel) / (in_dims * kernel**2) ** 0.5
        self.w = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
        self.b = nn.Parameter(torch.zeros(out_dims))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, self.b, self.stride, self.padding)


class Block(nn.Module):
    """Bottleneck residual block; ``kernels`` are those of its four convolutions."""

    def __init__(self, in_dims: int, out_dims: int, kernels: tuple[int, ...], gain: float):
        super().__init__()
        self.gain = gain
        widths = (in_dims, *3 * [out_dims // 4], out_dims)
        self.id_path = Conv(in_dims, out_dims, 1) if in_dims != out_dims else nn.Identity()
        self.res_path = nn.Sequential(OrderedDict(
            part for i, kernel in enumerate(kernels, 1) for part in (
                (f'relu_{i}', nn.ReLU()), (f'conv_{i}', Conv(widths[i - 1], widths[i], kernel)))))

    def forward(self, x: Tensor) -> Tensor:
        return self.id_path(x) + self.gain * self.res_path(x)


def make_groups(in_dims: int, widths: list[int], num_blocks: int, kernels: tuple[int, ...],
                resize: type[nn.Module], **resize_args) -> OrderedDict:
    """Groups of residual blocks, one per width, with a change of resolution between them."""
    # As in DALL-E's published code.
    gain = 1 / (len(widths) * num_blocks) ** 2
    groups = OrderedDict()
    for i, width in enumerate(widths, 1):
        parts = OrderedDict()
        for j in range(1, num_blocks + 1):
            parts[f'block_{j}'] = Block(in_dims, width, kernels, gain)
            in_dims = width
        if i < len(widths):
            parts['resize'] = resize(**resize_args)
        groups[f'group_{i}'] = nn.Sequential(parts)
    return groups


class DALLEEncoder(nn.Module):
    """Image to code logits; the published weights load under their own names.

    ``hidden_dims`` is the width of the first of ``num_groups`` groups of residual blocks; each next one is
    twice as wide, at half the resolution. The total stride is ``stem_stride * 2 ** (num_groups - 1)``.
    """

    def __init__(self, num_codes: int = 8192, hidden_dims: int = 256, num_groups: int = 4,
                 blocks_per_group: int = 2, stem_stride: int = 1):
        super().__init__()
        self.num_codes, self.stride = num_codes, stem_stride * 2 ** (num_groups - 1)
        widths = [hidden_dims * 2**i for i in range(num_groups)]
        self.blocks = nn.Sequential(OrderedDict(
            input=Conv(3, hidden_dims, 7, stem_stride),
            **make_groups(hidden_dims, widths, blocks_per_group, (3, 3, 3, 1),
                          nn.MaxPool2d, kernel_size=2),
            output=nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Conv(widths[-1], num_codes, 1)))))

    def features(self, mapped: Tensor) -> Tensor:
        """Everything before the last convolution: (B, 3, H, W) mapped pixels to (B, C, h, w)."""
        x = mapped.contiguous(memory_format=torch.channels_last)
        return self.blocks.output.relu(self.blocks[:-1](x))

    def logits(self, tokens: Tensor) -> Tensor:
        """The last convolution, of features (..., C): (..., K), in float32 whatever is around it.

        Logits reach 140, where the steps of bfloat16 are 1 and those of float16 and TF32 1/8.
        """
        last = self.blocks.output.conv
        with torch.autocast(tokens.device.type, enabled=False):
            return F.linear(tokens.float(), last.w.flatten(1).float(), last.b.float())

    def forward(self, mapped: Tensor) -> Tensor:
        """Mapped pixels (B, 3, H, W) to logits (B, K, h, w)."""
        return self.logits(self.features(mapped).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DALLEDecoder(nn.Module):
    """Codes to image: the encoder mirrored, with nearest-neighbour upsampling.

    ``code_dims`` is the width of a code's embedding; ``out_channels`` are 3, or 6 for means and scales.
    """

    def __init__(self, num_codes: int = 8192, hidden_dims: int = 256, code_dims: int = 128,
                 num_groups: int = 4, blocks_per_group: int = 2, stem_stride: int = 1,
                 out_channels: int = 6):
        super().__init__()
        widths = [hidden_dims * 2**i for i in reversed(range(num_groups))]
        self.blocks = nn.Sequential(OrderedDict(
            input=Conv(num_codes, code_dims, 1),
            **make_groups(code_dims, widths, blocks_per_group, (1, 3, 3, 3),
                          nn.Upsample, scale_factor=2, mode='nearest'),
            output=nn.Sequential(OrderedDict(
                relu=nn.ReLU(), conv=Conv(hidden_dims, out_channels * stem_stride**2, 1)))))
        self.stem_stride = stem_stride

    def forward(self, codes: Tensor) -> Tensor:
        """Decode code probabilities (B, K, h, w), or ids (B, h, w), to (B, out_channels, H, W)."""
        embed = self.blocks.input
        if codes.dim() == 3:
            x = (F.embedding(codes, embed.w.flatten(1).T) + embed.b).permute(0, 3, 1, 2)
        else:
            x = embed(codes)
        return F.pixel_shuffle(self.blocks[1:](x), self.stem_stride)


class Tokenizer(TargetGenerator):
    """Targets that are codes: the likeliest ones of ``encoder``, which ``decoder`` turns into pictures.

    ``dtype`` is the precision of all layers but the last on GPUs; float16 is what the authors ran.
    """

    def __init__(self, encoder: DALLEEncoder, decoder: DALLEDecoder | None, dtype: str = 'float16',
                 **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder
        self.num_outputs, self.stride = encoder.num_codes, encoder.stride
        self.dtype = getattr(torch, dtype)

    @torch.no_grad()
    def get_targets(self, target_images: Tensor, masked: Tensor) -> Tensor:
        """Codes (B, M) int64 at ``masked`` (B, M); the last convolution never sees the other positions."""
        self.grid_size(*target_images.shape[2:])
        device = target_images.device.type
        with torch.autocast(device, self.dtype, enabled=device == 'cuda'):
            features = self.encoder.features(map_pixels(target_images))
        tokens = gather_tokens(features.flatten(2).transpose(1, 2), masked).flatten(0, 1)
        parts = tokens.split(rows_at_once(self.num_outputs))
        return torch.cat([self.encoder.logits(part).argmax(-1) for part in parts]).view_as(masked)

    @torch.no_grad()
    def reconstruct(self, predictions: Tensor, target_images: Tensor) -> Tensor:
        """Picture of the likeliest codes of ``predictions`` (B, N, K): (B, 3, h, w) in [0, 1]."""
        grid = self.grid_size(*target_images.shape[2:])
        return self.paint(self.decoder(predictions.argmax(-1).unflatten(1, grid)).float())

    def paint(self, output: Tensor) -> Tensor:
        """Picture in [0, 1] of the decoder's output, whose first channels are means of mapped pixels."""
        return unmap_pixels(output[:, :3].sigmoid())


@MODELS.register_module()
class DALLETokenizer(Tokenizer):
    """The d-VAE encoder published with DALL-E, frozen, as the target generator of CAE.

    Args:
        num_codes, hidden_dims, num_groups, blocks_per_group: see :class:`DALLEEncoder`.
        decoder (dict, optional): ``init_cfg`` of the published decoder, needed for pictures only.
        dtype (str): precision of all layers but the last on GPUs.
        allow_random (bool): see :class:`TargetGenerator`.
        init_cfg (dict): of the encoder: OpenAI's pickled module, which is read without being executed, or a
            state dict as OpenMMLab distributes it.

    Raises:
        FileNotFoundError: without a checkpoint; the message says where to get one.
        ValueError: when the checkpoint cannot be read safely or does not fit.

    Source: CAE section 3.3; networks of "Zero-Shot Text-to-Image Generation", appendix A.1.
    """
    advice = (
        'Get the encoder from https://cdn.openaipublic.com/dall-e/encoder.pkl (OpenAI) or '
        'https://mmassets.onedl.ai/mmselfsup/1.x/target_generator_ckpt/dalle_encoder.pth (OpenMMLab) and '
        'give its path or URL, with --cfg-options tokenizer=PATH or as init_cfg=dict(type="Pretrained", '
        'checkpoint=PATH) of the target generator; or train your own tokenizer with tools/train.py '
        'configs/tokenizer/dvae_imagenet.py and use DiscreteVAE. allow_random=True accepts random '
        'weights, for tests and benchmarks only.')

    def __init__(self, num_codes: int = 8192, hidden_dims: int = 256, num_groups: int = 4,
                 blocks_per_group: int = 2, decoder: dict | None = None, dtype: str = 'float16',
                 allow_random: bool = False, init_cfg: dict | None = None):
        sizes = dict(num_codes=num_codes, hidden_dims=hidden_dims, num_groups=num_groups,
                     blocks_per_group=blocks_per_group)
        super().__init__(DALLEEncoder(**sizes), DALLEDecoder(**sizes) if decoder else None, dtype,
                         allow_random=allow_random, init_cfg=init_cfg)
        self.loaded = self.load(self.encoder, init_cfg)
        self.load(self.decoder, decoder)
        self.freeze()

    def reconstruct(self, predictions: Tensor, target_images: Tensor) -> Tensor:
        """Picture of the likeliest codes, or a ValueError without a decoder."""
        if self.decoder is None:
            raise ValueError(
                'DALLETokenizer paints only with its decoder: add --cfg-options model.target_generator.'
                'decoder.checkpoint=PATH, or https://cdn.openaipublic.com/dall-e/decoder.pkl as PATH')
        return super().reconstruct(predictions, target_images)
