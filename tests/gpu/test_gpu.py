"""What only a GPU can show. Without one these tests are skipped, and so far they have run on none."""
import copy
from functools import partial

import pytest
import torch
import torch.multiprocessing as mp
from mmcv.ops import RoIAlign
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from torch.nn.parallel import DistributedDataParallel

from cae_mm.engine.compilation import compile_model
from cae_mm.engine.loops import seed_iteration
from cae_mm.models.device_views import views_on_device
from cae_mm.models.targets.dalle import DALLEEncoder
from tests.guards.test_graphs import TOY, batch_of, graphs_of, total
from tests.transforms.test_device import batch as encoded
from tests.transforms.test_scaled import save

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
WRAPPER = dict(type='mmpretrain.AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3),
               clip_grad=dict(max_norm=3.))


def make():
    """A small CAE on the GPU, without drop path."""
    torch.manual_seed(0)
    cfg = copy.deepcopy(TOY)
    for part in ('backbone', 'neck', 'head'):
        cfg[part]['drop_path_rate'] = 0.
    return MODELS.build(cfg).cuda().train()


def batch():
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return dict(inputs=dict(images=(255 * images).byte(), mask=torch.arange(16).expand(4, -1) < 8))


def steps(model, wrapper, number=4, start=0):
    """Losses of steps by the wrapper."""
    losses = []
    for index in range(start, start + number):
        seed_iteration(0, index)
        losses.append(model.train_step(batch(), wrapper)['loss'].item())
    return losses


def test_a_step_in_bfloat16_is_near_one_in_float32():
    losses = {}
    for amp in (None, False):
        model = make()
        wrapper = build_optim_wrapper(model, dict(WRAPPER, amp=amp))
        with wrapper.optim_context(model):
            out = model.forward_masked(**model.data_preprocessor(batch(), True)['inputs'])
        assert out.logits.dtype == (torch.float32 if amp is False else torch.bfloat16)
        assert out.loss_reconstruct.dtype == out.loss_align.dtype == torch.float32
        losses[amp] = steps(model, wrapper)
    assert losses[None] == pytest.approx(losses[False], rel=0.02)


def test_compiled_it_computes_the_same_in_one_graph():
    eager, compiled = make(), make()
    compile_model(compiled, dict(fullgraph=True))
    batch = batch_of(eager, device='cuda')
    expected = eager(batch, mode='loss')
    got = compiled(batch, mode='loss')
    for name, loss in expected.items():
        torch.testing.assert_close(got[name], loss, rtol=1e-4, atol=1e-4)
    graphs_of(lambda: total(compiled(batch, mode='loss')).backward())


def test_a_state_that_was_stored_goes_on(tmp_path):
    model = make()
    wrapper = build_optim_wrapper(model, WRAPPER)
    whole = steps(model, wrapper, 6)
    model = make()
    wrapper = build_optim_wrapper(model, WRAPPER)
    steps(model, wrapper, 3)
    torch.save((model.state_dict(), wrapper.state_dict()), tmp_path / 'state.pth')
    model = make()
    wrapper = build_optim_wrapper(model, WRAPPER)
    weights, optimizer = torch.load(tmp_path / 'state.pth', map_location='cpu', weights_only=True)
    model.load_state_dict(weights)
    wrapper.load_state_dict(optimizer)
    assert steps(model, wrapper, 3, start=3) == pytest.approx(whole[3:], rel=1e-4)


def rank(number, folder, backend):
    """Gradients of one half of a batch, averaged over both."""
    torch.distributed.init_process_group(backend, rank=number, world_size=2,
                                         init_method=f'file://{folder}/rendezvous')
    torch.cuda.set_device(number)
    model = DistributedDataParallel(make(), device_ids=[number])
    whole = batch_of(model.module, 4, 'cuda')
    half = {key: value[2 * number:2 * number + 2] for key, value in whole.items()}
    total(model(half, mode='loss')).backward()
    torch.save({name: parameter.grad.cpu() for name, parameter in model.module.named_parameters()},
               f'{folder}/{number}.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two GPUs')
def test_two_ranks_are_one_with_both_halves(tmp_path):
    mp.spawn(partial(rank, backend='nccl'), (str(tmp_path),), nprocs=2)
    model = make()
    total(model(batch_of(model, 4, 'cuda'), mode='loss')).backward()
    for number in range(2):
        found = torch.load(tmp_path / f'{number}.pth', weights_only=True)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(found[name], parameter.grad.cpu(), rtol=1e-3, atol=1e-5)


def test_roi_align_gets_maps_in_the_order_that_it_reads():
    """mmcv's takes no other than PyTorch's first; images in another one must not change the maps' order."""
    torch.manual_seed(0)
    boxes = torch.tensor([[0., 3.2, 4.7, 40.1, 60.3], [1., 10., 2., 62., 33.]], device='cuda')
    encoder, align = MODELS.build(dict(TOY['backbone'], out_type='featmap')).cuda(), RoIAlign(7, 1 / 8, 0)
    images = torch.rand(2, 3, 64, 64, device='cuda').contiguous(memory_format=torch.channels_last)
    [maps] = encoder(images)
    assert maps.is_contiguous()
    expected = align(maps.cpu(), boxes.cpu())
    torch.testing.assert_close(align(maps, boxes).cpu(), expected, rtol=1e-4, atol=1e-5)


def test_the_last_layer_of_the_tokenizer_is_float32():
    """With weights that give logits beyond 100, where TensorFloat-32 is off by more than 0.01."""
    torch.manual_seed(0)
    encoder = DALLEEncoder(num_codes=512, hidden_dims=64).cuda()
    last = encoder.blocks.output.conv
    tokens = 4 * torch.rand(64, last.w.shape[1], device='cuda')
    with torch.no_grad(), torch.autocast('cuda', torch.float16):
        last.w.mul_(20)
        found = encoder.logits(tokens)
    exact = tokens.double() @ last.w.detach().flatten(1).double().T + last.b.detach().double()
    assert found.dtype == torch.float32 and exact.abs().max() > 100
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-3)


def test_views_by_nvjpeg_are_near_those_of_the_cpu(tmp_path):
    """Upright, of the same box and mirrored alike: another box is more than 20 levels of 255 away."""
    for orientation in range(1, 9):
        save(tmp_path / f'{orientation}.jpg', orientation=orientation, quality=95)
    crops = encoded(tmp_path, 'device')['inputs']['images']
    ours, theirs = (views_on_device(crops, torch.device(device)) for device in ('cuda', 'cpu'))
    for name, views in theirs.items():
        assert ours[name].is_cuda and (ours[name].cpu() - views).abs().mean((1, 2, 3)).max() < 5
