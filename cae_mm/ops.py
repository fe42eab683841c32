"""mmcv's operators, from torchvision and PyTorch where mmcv was installed without its own.

mmcv's operators have to be compiled, for each PyTorch and CUDA. Those that most detectors use are in
torchvision, compiled. ``install`` puts them where ``mmcv.ops`` looks for its own. Their signatures are
mmcv's: results go into tensors that the caller made. They compute float16 and bfloat16 in float32 and
round once; mmcv's compute float16 in float16 and refuse bfloat16.

RoIPool is not among them: torchvision's rounds the corners of a box first, mmcv's does not.
"""
import functools
import importlib
import importlib.machinery
import sys
import types
from operator import itemgetter

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from mmengine.logging import print_log

KERNELS = torch.ops.torchvision
OPERATORS = {}
# What torchvision's deformable convolution takes after the tensors, by mmcv's names in either of its two.
GEOMETRY = itemgetter('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW', 'group', 'deformable_group')
MODULATED_GEOMETRY = itemgetter('stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w',
                                'group', 'deformable_group')


class Operators(types.ModuleType):
    """A module with all of mmcv's operators; one that nothing here computes is an error when called."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, doc=__doc__)
        self.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)
        self.reason = reason
        vars(self).update(OPERATORS)

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')

        def missing(*args, **kwargs):
            raise NotImplementedError(
                f"{name} is an operator of mmcv's that nothing here replaces, and {self.reason}. Compile "
                'mmcv: `make ops` in a checkout, or `pip install --no-build-isolation --no-deps '
                '--force-reinstall --no-cache-dir onedl-mmcv` in the environment that has PyTorch')
        return missing

    def get_compiler_version(self) -> str:
        return 'none'

    def get_compiling_cuda_version(self) -> str:
        return 'not available'


def install() -> None:
    """Serve as ``mmcv._ext``, unless mmcv was compiled for what this machine computes on."""
    try:
        module = importlib.import_module('mmcv._ext')
    except ImportError as error:
        sys.modules['mmcv._ext'] = Operators('mmcv._ext', f"mmcv's own cannot be loaded ({error})")
    else:
        if torch.cuda.is_available() and module.get_compiling_cuda_version() == 'not available':
            module.reason = "mmcv's own were compiled without CUDA (FORCE_CUDA=1 compiles them with it)"
            vars(module).update(OPERATORS)


@functools.cache
def announce() -> None:
    """Say once, in the log of the run that needs them, whose operators these are."""
    print_log(f"Operators of torchvision and PyTorch in place of mmcv's ({', '.join(OPERATORS)}): "
              + sys.modules['mmcv._ext'].reason, logger='current')


def operator(function):
    """Give mmcv a function as its operator of that name."""
    @functools.wraps(function)
    def call(*args, **kwargs):
        announce()
        return function(*args, **kwargs)
    OPERATORS[function.__name__] = call
    return call


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of 16-bit floats in float32, another as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


@operator
def roi_align_forward(input, rois, output, argmax_y, argmax_x, aligned_height, aligned_width,
                      spatial_scale, sampling_ratio, pool_mode, aligned):
    if pool_mode == 0:
        raise NotImplementedError("RoIAlign(pool_mode='max'): torchvision's averages, as pool_mode='avg' "
                                  "does. For the maximum compile mmcv's own: make ops")
    maps = wide(input)
    output.copy_(KERNELS.roi_align(maps, rois.to(maps), spatial_scale, aligned_height, aligned_width,
                                   sampling_ratio, aligned))


@operator
def roi_align_backward(grad_output, rois, argmax_y, argmax_x, grad_input, aligned_height, aligned_width,
                       spatial_scale, sampling_ratio, pool_mode, aligned):
    grad = wide(grad_output)
    grad_input.copy_(KERNELS._roi_align_backward(
        grad, rois.to(grad), spatial_scale, aligned_height, aligned_width, *grad_input.shape,
        sampling_ratio, aligned))


@operator
def nms(boxes, scores, iou_threshold, offset):
    boxes = wide(boxes)
    # A width is x2 - x1 + offset. The threshold is mmcv's, a float32: 0.3 becomes a little more.
    boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return KERNELS.nms(boxes, scores.to(boxes), torch.tensor(iou_threshold, dtype=torch.float32).item())


@operator
def softnms(boxes, scores, dets, iou_threshold, sigma, min_score, method, offset):
    boxes, scores, rest, kept = wide(boxes), wide(scores).clone(), torch.arange(len(boxes)), []
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(1)
    while len(rest):
        best = rest[scores[rest].argmax()]
        dets[len(kept), :4], dets[len(kept), 4] = boxes[best], scores[best]
        kept.append(best)
        rest = rest[rest != best]
        inter = (torch.minimum(boxes[rest, 2:], boxes[best, 2:])
                 - torch.maximum(boxes[rest, :2], boxes[best, :2]) + offset).clamp(min=0).prod(1)
        iou = inter / (areas[rest] + areas[best] - inter)
        if method == 2:
            scores[rest] *= (-iou.square() / sigma).exp()
        else:
            near = iou >= torch.tensor(iou_threshold, dtype=iou.dtype)
            scores[rest] *= torch.where(near, 1 - iou if method == 1 else 0, 1)
        rest = rest[scores[rest] >= min_score]
    return torch.stack(kept) if kept else rest


@operator
def deform_conv_forward(input, weight, offset, output, columns, ones, **options):
    output.copy_(KERNELS.deform_conv2d(
        *map(wide, (input, weight, offset, *neutral(input, weight))), *GEOMETRY(options), False))


@operator
def deform_conv_backward_input(input, offset, grad_output, grad_input, grad_offset, weight, columns,
                               **options):
    grads = KERNELS._deform_conv2d_backward(
        *map(wide, (grad_output, input, weight, offset, *neutral(input, weight))), *GEOMETRY(options),
        False)
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])


@operator
def deform_conv_backward_parameters(input, offset, grad_output, grad_weight, columns, ones, **options):
    grads = KERNELS._deform_conv2d_backward(  # the weight's gradient does not depend on the weight
        *map(wide, (grad_output, input, grad_weight, offset, *neutral(input, grad_weight))),
        *GEOMETRY(options), False)
    grad_weight.copy_(grads[1])


def neutral(input, weight):
    """The mask and the bias of a convolution without them."""
    return input.new_zeros(len(input), 1), weight.new_zeros(len(weight))


@operator
def modulated_deform_conv_forward(input, weight, bias, ones, offset, mask, output, columns, with_bias,
                                  **options):
    bias = bias if with_bias else weight.new_zeros(len(weight))
    output.copy_(KERNELS.deform_conv2d(*map(wide, (input, weight, offset, mask, bias)),
                                       *MODULATED_GEOMETRY(options), True))


@operator
def modulated_deform_conv_backward(input, weight, bias, ones, offset, mask, columns, grad_input,
                                   grad_weight, grad_bias, grad_offset, grad_mask, grad_output, with_bias,
                                   **options):
    grads = KERNELS._deform_conv2d_backward(
        *map(wide, (grad_output, input, weight, offset, mask, weight.new_zeros(len(weight)))),
        *MODULATED_GEOMETRY(options), True)
    outputs = [grad_input, grad_weight, grad_offset, grad_mask] + [grad_bias] * with_bias
    for output, grad in zip(outputs, grads, strict=False):
        output.copy_(grad)


@operator
def sigmoid_focal_loss_forward(input, target, weight, output, gamma, alpha):
    p, log_p, log_q, is_class = focal_terms(input, target)
    loss = torch.where(is_class, -alpha * (1 - p) ** gamma * log_p, (alpha - 1) * p ** gamma * log_q)
    output.copy_(loss * weight[target][:, None] if len(weight) else loss)


@operator
def sigmoid_focal_loss_backward(input, target, weight, grad_input, gamma, alpha):
    p, log_p, log_q, is_class = focal_terms(input, target)
    grad = torch.where(is_class, -alpha * (1 - p) ** gamma * (1 - p - gamma * p * log_p),
                       (alpha - 1) * p ** gamma * (gamma * (1 - p) * log_q - p))
    grad_input.copy_(grad * weight[target][:, None] if len(weight) else grad)


def focal_terms(input, target):
    """Sigmoids, the logarithms of them and of their complements, and where the target's class is."""
    p, tiny = wide(input).sigmoid(), torch.finfo(torch.float32).tiny
    is_class = torch.arange(input.shape[1], device=input.device) == target[:, None]
    return p, p.clamp(min=tiny).log(), (1 - p).clamp(min=tiny).log(), is_class


install()
