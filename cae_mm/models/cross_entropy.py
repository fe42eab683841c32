"""Cross entropy of a linear layer's outputs, of which never all stand in memory."""
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS = 2**24  # so many at once, 64 MiB of float32


def rows_at_once(num_outputs: int) -> int:
    """How many rows of ``num_outputs`` logits are computed at once."""
    return max(1, LOGITS // num_outputs)


def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of ``F.cross_entropy(F.linear(x, weight, bias).float(), target)``, in chunks of rows.

    Gradients are computed along with the loss, so that no logit is kept or computed twice. Under autocast
    matrices are multiplied in its precision; softmax, loss and the sums over chunks are in float32.
    PyTorch's own ``F.linear_cross_entropy``, from 2.13 on, gives no likeliest codes, rounds the loss to the
    precision of the logits, and is not compiled.

    Args:
        x, weight, bias, target (Tensor): (n, D), (K, D), (K), and (n) int64 in 0..K-1.

    Returns:
        tuple[Tensor, Tensor]: the loss, and the share of rows whose largest logit is the target's: float32
            scalars.
    """
    dtype = F.linear(x[:1], weight[:1]).dtype  # what autocast makes of it
    tensors = (each.to(dtype) for each in (x, weight, bias))
    return _LinearCrossEntropy.apply(*tensors, target, torch.is_grad_enabled())


class _LinearCrossEntropy(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x, weight, bias, target, with_gradients):
        loss = right = x.new_zeros((), dtype=torch.float32)
        rows = rows_at_once(len(weight))
        grad_x, grad_weight, grad_bias = [], torch.zeros_like(weight, dtype=torch.float32), 0.
        for part, codes in zip(x.split(rows), target.split(rows), strict=True):
            logits = F.linear(part, weight, bias).float()
            loss = loss + F.cross_entropy(logits, codes, reduction='sum')
            right = right + (logits.argmax(-1) == codes).sum()
            if with_gradients:
                grad, codes = logits.softmax(-1), codes[:, None]
                # A scatter that has one writer for each number is the same each time, on GPUs too.
                grad = grad.scatter_(1, codes, grad.gather(1, codes) - 1)
                grad_bias = grad_bias + grad.sum(0)
                grad = grad.to(weight.dtype)  # of the sum: divided by n, float16 would round it to 0
                grad_x.append(grad @ weight)
                grad_weight += grad.mT @ part
        right = right / len(x)
        ctx.mark_non_differentiable(right)
        if with_gradients:
            ctx.save_for_backward(torch.cat(grad_x), grad_weight, grad_bias)
        return loss / len(x), right

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss, _):
        grad_x, *_ = grads = ctx.saved_tensors
        return *((grad_loss / len(grad_x) * grad).to(grad_x.dtype) for grad in grads), None, None
