import sys
import types

import mmcv.ops
import pytest
import torch
import torch.nn.functional as F

from cae_mm import ops

COMPILED = sys.modules['mmcv._ext']
FILES = ['roi_align', 'nms', 'deform_conv', 'modulated_deform_conv', 'focal_loss', 'roi_pool', 'carafe']


@pytest.fixture
def use(monkeypatch):
    """A function that makes mmcv.ops compute with a module of operators."""
    def use(module):
        monkeypatch.setitem(sys.modules, 'mmcv._ext', module)
        for name in FILES:
            monkeypatch.setattr(sys.modules[f'mmcv.ops.{name}'], 'ext_module', module)
    return use


@pytest.fixture
def ours(use):
    module = ops.Operators('mmcv._ext', 'a test asked for them')
    use(module)
    return module


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def boxes(number, size, seed=0, dtype=torch.float64):
    """Boxes, some beyond the borders of a map of ``size``."""
    corners = torch.rand(number, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return ((corners * 1.4 - 0.2).sort(1).values * size).flatten(1)


def rois(number, images, size):
    return torch.cat([torch.arange(number)[:, None] % images, boxes(number, size)], 1)


def bilinear(image, y, x):
    """The values (C, N) of an image (C, H, W) at points, up to a pixel outside those of the border."""
    height, width = image.shape[1:]
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor().long(), x.floor().long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, over = y - top, x - left
    return inside * ((1 - down) * ((1 - over) * image[:, top, left] + over * image[:, top, right])
                     + down * ((1 - over) * image[:, bottom, left] + over * image[:, bottom, right]))


def roi_align(images, rois, output_size, scale, samples, aligned):
    """The mean over a grid of points in each of the bins of each box."""
    pooled = []
    for index, *box in rois.tolist():
        x1, y1, x2, y2 = (value * scale - 0.5 * aligned for value in box)
        width, height = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
        rows, columns = output_size
        down = samples or -int(-height // rows)
        across = samples or -int(-width // columns)
        y = y1 + (torch.arange(rows * down, dtype=torch.float64) + 0.5) * height / (rows * down)
        x = x1 + (torch.arange(columns * across, dtype=torch.float64) + 0.5) * width / (columns * across)
        y, x = torch.meshgrid(y, x, indexing='ij')
        values = bilinear(images[int(index)], y.flatten(), x.flatten())
        pooled.append(values.unflatten(1, (rows, down, columns, across)).mean((2, 4)))
    return torch.stack(pooled)


def deform_conv(images, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups):
    """A convolution whose taps lie where the offsets say, outside of the image zero."""
    batch, channels, height, width = images.shape
    rows, columns = offset.shape[2:]
    kernel = weight.shape[2:]
    offset = offset.view(batch, deform_groups, *kernel, 2, rows, columns)
    mask = mask.view(batch, deform_groups, *kernel, rows, columns)
    images = images.view(batch * deform_groups, channels // deform_groups, height, width)
    taps = []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            y = torch.arange(rows)[:, None] * stride - padding + i * dilation + offset[:, :, i, j, 0]
            x = torch.arange(columns) * stride - padding + j * dilation + offset[:, :, i, j, 1]
            grid = torch.stack([x * 2 / (width - 1) - 1, y * 2 / (height - 1) - 1], -1).flatten(0, 1)
            tap = F.grid_sample(images, grid, align_corners=True) * mask[:, :, i, j].flatten(0, 1)[:, None]
            taps.append(tap.view(batch, groups, channels // groups, rows, columns))
    taps = torch.stack(taps, 3).unflatten(3, kernel)
    out = torch.einsum('bgcijyx,gocij->bgoyx', taps, weight.unflatten(0, (groups, -1))).flatten(1, 2)
    return out + bias[:, None, None]


def check(function, reference, *tensors):
    """Equal values and gradients of a function and its reference, in all of the tensors."""
    results = []
    for compute in function, reference:
        inputs = [tensor.clone().requires_grad_() for tensor in tensors]
        output = compute(*inputs)
        output.backward(random(*output.shape, seed=9))
        results.append([output.detach(), *(tensor.grad for tensor in inputs)])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('samples', [0, 2])
def test_roi_align(ours, aligned, samples):
    regions = rois(7, 2, 40)
    check(lambda maps: mmcv.ops.roi_align(maps, regions, (3, 4), 0.25, samples, 'avg', aligned),
          lambda maps: roi_align(maps, regions, (3, 4), 0.25, samples, aligned), random(2, 3, 10, 9))


def test_roi_align_reads_maps_in_any_order_of_memory(ours):
    maps, regions = random(2, 3, 10, 9), rois(5, 2, 10)
    last = maps.to(memory_format=torch.channels_last)
    assert torch.equal(mmcv.ops.roi_align(maps, regions, 3), mmcv.ops.roi_align(last, regions, 3))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_roi_align_in_16_bits_is_that_in_32_rounded_once(ours, dtype):
    maps = random(2, 3, 10, 9).to(dtype).requires_grad_()
    wide = maps.detach().float().requires_grad_()
    regions = rois(5, 2, 10).to(dtype)
    narrow_out, out = mmcv.ops.roi_align(maps, regions, 3), mmcv.ops.roi_align(wide, regions.float(), 3)
    assert narrow_out.dtype == dtype and torch.equal(narrow_out, out.to(dtype))
    narrow_out.backward(torch.ones_like(narrow_out))
    out.backward(torch.ones_like(out))
    assert maps.grad.dtype == dtype and torch.equal(maps.grad, wide.grad.to(dtype))


def greedy(boxes, scores, offset, decay, min_score):
    """Boxes in the order in which the best of the rest is taken, and those left are decayed by it."""
    scores, rest, kept = scores.tolist(), list(range(len(boxes))), []
    while rest:
        best = max(rest, key=scores.__getitem__)
        rest.remove(best)
        kept.append((best, scores[best]))
        for other in list(rest):
            left, top = torch.maximum(boxes[best, :2], boxes[other, :2]).tolist()
            right, bottom = torch.minimum(boxes[best, 2:], boxes[other, 2:]).tolist()
            both = max(right - left + offset, 0) * max(bottom - top + offset, 0)
            one, two = ((box[2:] - box[:2] + offset).prod().item() for box in boxes[[best, other]])
            scores[other] *= decay(both / (one + two - both))
            if scores[other] < min_score:
                rest.remove(other)
    return kept


@pytest.mark.parametrize('offset', [0, 1])
def test_nms(ours, offset):
    candidates, scores = boxes(60, 30, dtype=torch.float32), torch.rand(60)
    dets, kept = mmcv.ops.nms(candidates, scores, 0.3, offset)
    expected = greedy(candidates, scores, offset, lambda overlap: overlap <= 0.3, 1e-9)
    assert kept.tolist() == [index for index, _ in expected] and 5 < len(kept) < 60
    assert torch.equal(dets, torch.cat([candidates, scores[:, None]], 1)[kept])


def test_nms_keeps_a_box_whose_overlap_is_the_threshold(ours):
    pair = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 3.]])  # float32's 3 / 10 is more than 0.3
    assert len(mmcv.ops.nms(pair, torch.tensor([0.9, 0.8]), 0.3)[1]) == 2


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method, decay', [
    ('naive', lambda overlap: overlap < 0.3),
    ('linear', lambda overlap: 1 - overlap * (overlap >= 0.3)),
    ('gaussian', lambda overlap: torch.tensor(-overlap ** 2 / 0.5).exp().item()),
])
def test_soft_nms(ours, method, decay, offset):
    candidates, scores = boxes(40, 30, dtype=torch.float32), torch.rand(40)
    dets, kept = mmcv.ops.soft_nms(candidates, scores, 0.3, 0.5, 0.05, method, offset)
    expected = greedy(candidates, scores, offset, decay, 0.05)
    assert kept.tolist() == [index for index, _ in expected] and 5 < len(kept) < 40
    torch.testing.assert_close(dets[:, 4], torch.tensor([score for _, score in expected]))
    assert torch.equal(dets[:, :4], candidates[kept])


def test_nothing_to_suppress(ours):
    for suppress in mmcv.ops.nms, mmcv.ops.soft_nms:
        dets, kept = suppress(torch.zeros(0, 4), torch.zeros(0), 0.5)
        assert dets.shape == (0, 5) and kept.shape == (0,) and kept.dtype == torch.int64


@pytest.mark.parametrize('groups, deform_groups', [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize('stride, padding, dilation', [(1, 1, 1), (2, 0, 1), (1, 2, 2)])
def test_deformable_convolutions(ours, groups, deform_groups, stride, padding, dilation):
    geometry = stride, padding, dilation, groups, deform_groups
    images, weight, bias = random(2, 4, 7, 8), random(6, 4 // groups, 3, 3, seed=1), random(6, seed=2)
    rows, columns = F.conv2d(images, weight, None, *geometry[:4]).shape[2:]
    offset = random(2, deform_groups * 18, rows, columns, seed=3)
    mask = random(2, deform_groups * 9, rows, columns, seed=4).sigmoid()
    check(lambda images, offset, weight: mmcv.ops.deform_conv2d(images, offset, weight, *geometry),
          lambda images, offset, weight: deform_conv(images, offset, torch.ones_like(mask), weight,
                                                     torch.zeros_like(bias), *geometry),
          images, offset, weight)
    check(lambda *tensors: mmcv.ops.modulated_deform_conv2d(*tensors, *geometry),
          lambda *tensors: deform_conv(*tensors, *geometry), images, offset, mask, weight, bias)
    check(lambda *tensors: mmcv.ops.modulated_deform_conv2d(*tensors, None, *geometry),
          lambda *tensors: deform_conv(*tensors, torch.zeros_like(bias), *geometry),
          images, offset, mask, weight)


@pytest.mark.parametrize('weight', [None, torch.tensor([0.5, 1, 2], dtype=torch.float64)])
def test_sigmoid_focal_loss(ours, weight):
    target = torch.tensor([0, 2, 1, 2]) if weight is not None else torch.tensor([0, 2, 3, 1])

    def definition(logits):
        hot = F.one_hot(target, 4)[:, :3].double()  # class 3 is the background
        loss = F.binary_cross_entropy_with_logits(logits, hot, reduction='none')
        missed = (hot - logits.sigmoid()).abs()
        loss = loss * missed ** 2 * (0.25 * hot + 0.75 * (1 - hot))
        return loss if weight is None else loss * weight[target][:, None]

    check(lambda logits: mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, 'none'),
          definition, random(4, 3) * 3)


def compute_all(dtype, device='cpu'):
    """Values and gradients of all operators that mmcv computes on CPUs."""
    maps, weight, bias, offset, mask = (tensor.to(device, dtype).requires_grad_() for tensor in (
        random(2, 4, 12, 13), random(6, 4, 3, 3, seed=1), random(6, seed=2), random(2, 18, 12, 13, seed=3),
        random(2, 9, 12, 13, seed=4).sigmoid()))
    regions = rois(30, 2, 48).to(device, dtype)
    outputs = [mmcv.ops.roi_align(maps, regions, (7, 5), 0.25, samples, 'avg', aligned)
               for samples in (0, 2) for aligned in (True, False)]
    outputs += [mmcv.ops.deform_conv2d(maps, offset, weight, 1, 1),
                mmcv.ops.modulated_deform_conv2d(maps, offset, mask, weight, bias, 1, 1)]
    sum((output * random(*output.shape).to(output)).sum() for output in outputs).backward()
    values = [tensor.detach() for tensor in outputs]
    values += [tensor.grad for tensor in (maps, weight, bias, offset, mask)]
    candidates = boxes(300, 60, dtype=torch.float32).to(device)
    scores = random(300, seed=5).sigmoid().float().to(device)
    for border in 0, 1:
        values += mmcv.ops.nms(candidates, scores, 0.5, border)
        for method in 'naive', 'linear', 'gaussian':
            values += mmcv.ops.soft_nms(candidates, scores, 0.3, 0.5, 0.05, method, border)
    return [value.cpu() for value in values]


def assert_near(values, expected, tolerance):
    for got, want in zip(values, expected, strict=True):
        assert got.shape == want.shape and got.dtype == want.dtype
        assert (got - want).double().norm() <= tolerance * want.double().norm()


@pytest.mark.skipif(isinstance(COMPILED, ops.Operators), reason='mmcv has no operators of its own here')
@pytest.mark.parametrize('dtype, tolerance', [
    (torch.float32, 1e-6),
    (torch.float16, 0.05)])  # mmcv computes in float16, where points fall into neighbouring pixels
def test_equal_to_those_that_mmcv_compiles(use, dtype, tolerance):
    use(COMPILED)
    expected = compute_all(dtype)
    use(ops.Operators('mmcv._ext', 'a test compares them'))
    assert_near(compute_all(dtype), expected, tolerance)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_gpus_compute_the_same(ours, dtype, tolerance):
    assert_near(compute_all(dtype, 'cuda'), compute_all(dtype), tolerance)


def test_others_are_an_error_when_called(ours):
    features = torch.zeros(1, 4, 8, 8)
    for call, name in [
            (lambda: mmcv.ops.RoIPool(2)(features, torch.zeros(1, 5)), 'roi_pool_forward'),
            (lambda: mmcv.ops.carafe(features, features[:, :1], 1, 1, 1), 'carafe_forward')]:
        with pytest.raises(NotImplementedError, match=f'^{name} is an operator.*make ops'):
            call()
    with pytest.raises(NotImplementedError, match="pool_mode='max'"):
        mmcv.ops.roi_align(features, torch.zeros(1, 5), 2, 1.0, 0, 'max')
    assert mmcv.ops.get_compiling_cuda_version() == 'not available'


@pytest.fixture
def logged(monkeypatch):
    lines = []
    monkeypatch.setattr(ops, 'print_log', lambda line, logger: lines.append(line))
    ops.announce.cache_clear()
    yield lines
    ops.announce.cache_clear()


def test_where_mmcv_has_none(monkeypatch, logged):
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    ops.install()
    module = sys.modules['mmcv._ext']
    for _ in range(2):
        assert module.nms(torch.zeros(1, 4), torch.zeros(1), 0.5, 0).tolist() == [0]
    assert len(logged) == 1 and "mmcv's own cannot be loaded" in logged[0]


@pytest.mark.parametrize('cuda, gpu, replaced', [
    ('13.0', True, False), ('not available', False, False), ('not available', True, True)])
def test_where_mmcv_has_its_own(monkeypatch, logged, cuda, gpu, replaced):
    module = types.ModuleType('mmcv._ext')
    module.get_compiling_cuda_version = lambda: cuda
    module.nms = module.carafe_forward = own = lambda *args: 'mmcv'
    monkeypatch.setitem(sys.modules, 'mmcv._ext', module)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    ops.install()
    assert (module.nms is not own) == replaced and module.carafe_forward is own
    module.nms(torch.zeros(1, 4), torch.zeros(1), 0.5, 0)
    assert ['without CUDA' in line for line in logged] == [True] * replaced
