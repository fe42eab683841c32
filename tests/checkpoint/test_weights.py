"""What is loaded as a weight is a finite floating point number, of the size that its model needs."""
import mmengine.runner
import pytest
import torch
from mmengine.runner import load_checkpoint

from cae_mm.checkpoint.convert import convert_file
from cae_mm.checkpoint.files import read_checkpoint, write_checkpoint
from cae_mm.checkpoint.loader import StrictLoadHook, load_backbone
from cae_mm.checkpoint.sources import fetch

from .conftest import KINDS
from .test_facts import Runner

WEIGHT = 'backbone.blocks.1.mlp.fc1.weight'


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('change, problem', [
    (lambda x: x.fill_(float('nan')), 'is not finite'),
    (lambda x: x.index_fill_(0, torch.tensor(3), -float('inf')), 'is not finite'),
    (lambda x: x.int(), 'is of torch.int32'),
    (lambda x: x.bool(), 'is of torch.bool'),
    (lambda x: x.to(torch.float8_e4m3fn), 'is of torch.float8_e4m3fn'),
    (lambda x: x.to(torch.complex64), 'is of torch.complex64'),
])
def test_weights_are_finite_floating_point_numbers(make, state, tmp_path, change, problem, suffix):
    path, changed = tmp_path / f'x{suffix}', state('encoder')
    changed[WEIGHT] = change(changed[WEIGHT])
    if suffix == '.safetensors' and changed[WEIGHT].is_complex():
        pytest.skip('the format has no complex numbers')
    write_checkpoint(changed, path)
    encoder, before = make('encoder'), state('encoder')
    for load in (lambda: load_backbone(encoder, path), lambda: convert_file(path, tmp_path / 'out.pth'),
                 lambda: load_checkpoint(encoder, str(path)), lambda: read_checkpoint(path)):
        with pytest.raises(ValueError, match=f'x{suffix}: .*blocks.1.mlp.fc1.weight {problem}'):
            load()
    assert not (tmp_path / 'out.pth').exists()
    after = {f'backbone.{name}': value for name, value in encoder.state_dict().items()}
    assert all(torch.equal(before[name], value) for name, value in after.items())


def test_what_nobody_takes_is_not_refused(make, state, tmp_path):
    """Heads of others may be anything, where only the encoder is loaded."""
    beside = {'head.fc.weight': torch.full((5, 24), float('nan')), 'head.fc.bias': torch.ones(5).int()}
    torch.save(dict(state_dict=state('encoder') | beside), tmp_path / 'x.pth')
    load_backbone(make('encoder'), tmp_path / 'x.pth')
    convert_file(tmp_path / 'x.pth', tmp_path / 'out.pth', export='encoder')


def test_counters_are_whole_numbers_and_weights_are_not(make, tmp_path):
    model = make('linear probe')
    state = model.state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'x.pth')
    hook, runner = StrictLoadHook(), Runner(model)
    hook.after_load_checkpoint(runner, read_checkpoint(tmp_path / 'x.pth'))
    for name, kind in (('neck.bn.num_batches_tracked', torch.float32), ('head.fc.weight', torch.int64)):
        with pytest.raises(RuntimeError, match=f'1 of another kind: {name}: {kind} in the file'):
            hook.after_load_checkpoint(runner, dict(state_dict=state | {name: state[name].to(kind)}))


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind != 'encoder'])
def test_an_array_of_another_size_is_refused(state, tmp_path, kind):
    whole, cut = state(kind), {}
    for name, value in whole.items():
        for axis, size in enumerate(value.shape):
            if size > 1 and name != 'backbone.patch_embed.weight' and not name.endswith('pos_embed'):
                cut[f'{name} cut at {axis}'] = value.narrow(axis, 0, size // 2)
        if value.dim() > 1 and value.shape != value.mT.shape:
            cut[f'{name} turned'] = value.mT.contiguous()
    for axis, size in enumerate(whole['backbone.patch_embed.weight'].shape):
        if axis != 1:  # images of fewer channels are another encoder, not half of one
            cut[f'backbone.patch_embed.weight cut at {axis}'] = whole['backbone.patch_embed.weight'].narrow(
                axis, 0, size // 2)
    # Half of a sine-cosine table can be that of half the grid: only a stated image size would tell.
    cut['backbone.pos_embed cut at 1'] = whole['backbone.pos_embed'][:, :11]
    for what, value in cut.items():
        name = what.split(' ')[0]
        write_checkpoint(whole | {name: value}, tmp_path / 'x.pth')
        with pytest.raises(ValueError, match='.') as error:
            convert_file(tmp_path / 'x.pth', tmp_path / 'out.pth')
            pytest.fail(what)
        assert '\n' not in str(error.value) and not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize('number', ['7', '1000000', '9' * 500])
def test_block_numbers_are_those_of_the_blocks_there_are(state, tmp_path, number):
    changed = state('pre-training')
    for part in ('backbone', 'head'):
        given = {name.replace(f'{part}.blocks.1.', f'{part}.blocks.{number}.'): value
                 for name, value in changed.items()}
        torch.save(given, tmp_path / 'x.pth')
        with pytest.raises(ValueError, match=f'less than .*{part}.blocks.*'):
            convert_file(tmp_path / 'x.pth', tmp_path / 'out.pth')


@pytest.mark.parametrize('facts', [dict(num_heads='many'), dict(num_heads=0), dict(img_size=[32]), 3,
                                   dict(img_size=['a', 'b']), dict(mean=['x']), dict(patch_size=2.5)])
def test_facts_that_cannot_be(make, state, tmp_path, facts):
    torch.save(dict(state_dict=state('encoder'), meta=dict(cae_mm=facts)), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='x.pth: the meta states'):
        load_backbone(make('encoder'), tmp_path / 'x.pth')


def test_stated_image_sizes_and_heads_fit_the_arrays(state, tmp_path):
    for facts, problem in ((dict(img_size=[64, 64]), 'images of 64x64 have 8x8 patches'),
                           (dict(num_heads=7), 'width of 24 does not divide into 7 heads')):
        torch.save(dict(state_dict=state('encoder'), meta=dict(cae_mm=facts)), tmp_path / 'x.pth')
        with pytest.raises(ValueError, match=problem):
            convert_file(tmp_path / 'x.pth', tmp_path / 'out.pth')


def test_where_files_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    calls = []

    def download(url, target, **kwargs):
        calls.append(url)
        torch.save({'state_dict': {'weight': torch.ones(1, 1), 'bias': torch.ones(1)}}, target)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    model = torch.nn.Linear(1, 1)
    for _ in range(2):
        load_checkpoint(model, 'https://example.org/some/x.pth?version=1')
    load_checkpoint(model, 'torchvision://resnet18')
    assert len(calls) == 2 and 'resnet18' in calls[1] and model.weight.item() == 1
    with pytest.raises(ValueError, match='http://example.org/x.pth#sha256=DIGEST'):
        load_checkpoint(model, 'http://example.org/x.pth')
    with pytest.raises(ValueError, match='x.pth has sha256 .*, not 00'):
        fetch('http://example.org/x.pth#sha256=' + '0' * 64)
    for store in ('s3://bucket/x.pth', 'pavi://x', 'clusters:petrel://x.pth'):
        with pytest.raises(ValueError, match='copy it to a file'):
            mmengine.runner.CheckpointLoader.load_checkpoint(store)
