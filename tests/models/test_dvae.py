"""The trainable tokenizer: it learns, anneals, resumes, loads whole, and paints."""
import copy
import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MessageHub
from mmpretrain.registry import MODELS

import cae_mm  # noqa: F401
from cae_mm.models.targets.dvae import DiscreteVAE

CONFIGS = Path(__file__).parents[2] / 'configs'
SIZES = dict(num_codes=32, hidden_dims=16, code_dims=16, num_groups=2, stem_stride=2,
             blocks_per_group=1)


def pictures(number, size=16):
    """Two-coloured pictures, different in colours, angle and border."""
    axis = torch.linspace(-1, 1, size)
    angle = torch.rand(number, 1, 1, 1) * math.tau
    side = angle.cos() * axis + angle.sin() * axis[:, None] + torch.rand(number, 1, 1, 1) - 0.5 > 0
    palette = torch.tensor([[0., 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    colours = palette[torch.randint(5, (2, number)), :, None, None]
    return torch.where(side, *colours)


def train(model, steps):
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(steps):
        losses.append(model(dict(target_images=pictures(32))))
        optimizer.zero_grad()
        model.parse_losses(losses[-1])[0].backward()
        optimizer.step()
    return losses


@pytest.fixture
def seed():
    torch.manual_seed(0)


def test_learns_and_uses_its_codes(seed):
    model = DiscreteVAE(anneal=40, **SIZES)
    losses = train(model, 60)
    first, last = (sum(step['loss_reconstruct'] for step in part) / 5
                   for part in (losses[:5], losses[-5:]))
    assert last < 0.5 * first
    assert losses[-1]['code_usage'] > 50
    assert losses[-1]['code_perplexity'] > 8
    images = pictures(16)
    with torch.no_grad():
        error = (model(dict(target_images=images), mode='predict') - images).square().mean()
    assert error < images.var() / 3  # painted from the codes alone


def test_codes_start_apart_where_random_logits_choose_few(seed):
    images = dict(target_images=pictures(32))
    placed, plain = DiscreteVAE(anneal=10, **SIZES), DiscreteVAE(anneal=10, sharpness=0, **SIZES)
    usage = [model(images)['code_usage'].item() for model in (placed, plain)]
    assert usage[0] > 80 > 40 > usage[1]


def test_codes_are_placed_once_in_the_life_of_the_weights(seed):
    """Not again where training goes on, and again where weights that have not trained are loaded."""
    images, new = dict(target_images=pictures(32)), DiscreteVAE(anneal=10, **SIZES)
    untrained = copy.deepcopy(new.state_dict())
    new(images)
    placed = copy.deepcopy(new.encoder.blocks.output.conv.w)
    resumed = DiscreteVAE(anneal=10, **SIZES)
    resumed.load_state_dict(new.state_dict())
    for model in (new, copy.deepcopy(new), resumed):
        model(images)
        assert torch.equal(model.encoder.blocks.output.conv.w, placed)
    new.load_state_dict(untrained)
    new(images)
    assert not torch.equal(new.encoder.blocks.output.conv.w, untrained['encoder.blocks.output.conv.w'])
    assert new.sharpness == 30


def test_temperature_anneals_and_resumes(seed):
    model = DiscreteVAE(temperature=(1.0, 0.25), anneal=10, **SIZES)
    temperatures = torch.stack([step['temperature'] for step in train(model, 12)])
    want = torch.tensor([0.25**min(step / 10, 1) for step in range(12)])
    torch.testing.assert_close(temperatures, want)

    resumed = DiscreteVAE(temperature=(1.0, 0.25), anneal=10, **SIZES)
    interrupted = DiscreteVAE(temperature=(1.0, 0.25), anneal=10, **SIZES)
    train(interrupted, 4)
    resumed.load_state_dict(interrupted.state_dict())
    images = dict(target_images=pictures(8))
    outputs = []
    for model in (interrupted, resumed):
        torch.manual_seed(1)
        outputs.append(model(images))
    assert outputs[0].keys() == outputs[1].keys()
    assert all(torch.equal(outputs[0][name], outputs[1][name]) for name in outputs[0])
    assert outputs[1]['temperature'] == pytest.approx(0.25**0.4)


def test_anneal_as_a_share_of_the_run(seed):
    model = DiscreteVAE(temperature=(1.0, 0.25), anneal=0.5, **SIZES)
    hub = MessageHub.get_instance('test_anneal')
    model.step += 5
    with pytest.raises(ValueError, match='anneal=0.5'):
        model.current_temperature()
    hub.update_info('max_iters', 20)
    assert model.current_temperature() == pytest.approx(0.5)


@pytest.mark.parametrize('reconstruction', ['mse', 'logit_laplace'])
@pytest.mark.parametrize('regulariser', ['kl', 'usage'])
def test_every_loss_reaches_both_networks(seed, reconstruction, regulariser):
    model = DiscreteVAE(reconstruction=reconstruction, regulariser=regulariser, weight=1.0, anneal=10,
                        sharpness=1.0, **SIZES)
    images = torch.cat([pictures(4), torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)])
    model.parse_losses(model(dict(target_images=images)))[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_regularisers():
    kl, usage = (DiscreteVAE(regulariser=name, **SIZES) for name in ('kl', 'usage'))
    uniform = torch.zeros(2, 32, 4, 4)
    certain = 50 * torch.nn.functional.one_hot(torch.arange(32).view(2, 4, 4)).permute(0, 3, 1, 2)
    constant = 50 * torch.nn.functional.one_hot(torch.zeros(2, 4, 4).long(), 32).permute(0, 3, 1, 2)
    values = [[model.divergence(logits.float()).item() for logits in (uniform, certain, constant)]
              for model in (kl, usage)]
    full = math.log(32)
    assert values[0] == pytest.approx([0, full, full], abs=1e-4)
    assert values[1] == pytest.approx([0, 0, full], abs=1e-4)


@pytest.mark.parametrize('wrong', [dict(reconstruction='mae'), dict(regulariser='none')])
def test_unknown_losses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong.values()))):
        DiscreteVAE(**wrong, **SIZES)


@pytest.fixture
def checkpoint(tmp_path, seed):
    """A checkpoint as a runner writes it, and the model in it."""
    model = DiscreteVAE(anneal=10, **SIZES)
    train(model, 2)
    path = tmp_path / 'epoch_1.pth'
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1), message_hub=dict(
        log_scalars={'train/loss': history}, runtime_info={})), path)
    return model, path


def as_tokenizer(path, **changes):
    return MODELS.build(dict(type='DiscreteVAE', **{**SIZES, **changes},
                             init_cfg=dict(type='Pretrained', checkpoint=str(path))))


def test_checkpoint_round_trip(checkpoint):
    model, path = checkpoint
    tokenizer = as_tokenizer(path)
    tokenizer.freeze()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, tokenizer.state_dict()[name]), name
    images = pictures(4)
    ids = model(dict(target_images=images), mode='tensor').argmax(1).flatten(1)
    masked = torch.rand(4, 16).argsort(1)[:, :7]
    assert torch.equal(tokenizer.get_targets(images, masked), ids.gather(1, masked))
    assert tokenizer.num_outputs == 32 and tokenizer.grid_size(16, 24) == (4, 6)


def test_checkpoint_must_fit_entirely(checkpoint, tmp_path):
    model, path = checkpoint
    with pytest.raises(ValueError, match='blocks.output.conv.w'):
        as_tokenizer(path, num_codes=16)
    state = model.state_dict()
    del state['encoder.blocks.input.b']
    torch.save(state, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match='encoder.blocks.input.b'):
        as_tokenizer(tmp_path / 'part.pth')


@pytest.mark.parametrize('reconstruction', ['mse', 'logit_laplace'])
def test_pictures_from_predictions(seed, reconstruction):
    model = DiscreteVAE(reconstruction=reconstruction, allow_random=True, **SIZES)
    images = pictures(2)
    logits = model(dict(target_images=images), mode='tensor').flatten(2).transpose(1, 2)
    painted = model.reconstruct(logits, images)
    assert painted.shape == images.shape and 0 <= painted.min() and painted.max() <= 1
    # The true logits give what the model itself makes of the images.
    torch.testing.assert_close(painted, model(dict(target_images=images), mode='predict'))


def test_low_precision_training(seed):
    model = DiscreteVAE(anneal=10, **SIZES)
    with torch.autocast('cpu', torch.bfloat16):
        losses = train(model, 3)
    assert losses[-1]['loss_reconstruct'].dtype == torch.float32
    assert all(step['loss_reconstruct'].isfinite() for step in losses)


def test_codes_in_low_precision_are_those_of_float32_logits(seed):
    model = DiscreteVAE(anneal=10, **SIZES)
    train(model, 1)  # logits of a deviation of 30, as in every run
    images = dict(target_images=pictures(64))
    with torch.autocast('cpu', torch.bfloat16), torch.no_grad():
        features = model.encoder.features(0.8 * images['target_images'] + 0.1)
        logits = model(images, mode='tensor')
    assert features.dtype == torch.bfloat16 and logits.dtype == torch.float32
    last = model.encoder.blocks.output.conv
    exact = torch.einsum('bchw,kc->bkhw', features.double(), last.w.double()[:, :, 0, 0])
    exact = exact + last.b.double()[:, None, None]
    assert exact.abs().max() > 100  # where bfloat16 has steps of 1
    assert torch.equal(logits.argmax(1), exact.argmax(1))


@pytest.mark.parametrize('name', ['dvae_imagenet', 'dvae_eurosat', 'dvae_demo'])
def test_configs_on_the_meta_device(name):
    config = Config.fromfile(CONFIGS / 'tokenizer' / f'{name}.py')
    with torch.device('meta'):
        model = MODELS.build(config.model)
    size = next(step['size'] for step in config.pipeline if step['type'] == 'TwoViewCrop')
    grid = model.grid_size(size, size)
    assert grid == (14, 14) if name == 'dvae_imagenet' else grid == (8, 8)
    features = model.encoder.features(torch.empty(1, 3, size, size, device='meta'))
    assert features.shape[2:] == grid
    codes = torch.empty(1, model.num_outputs, *grid, device='meta')
    assert model.decoder(codes).shape[2:] == (size, size)


def test_checkpoints_of_unused_codes_are_finite():
    """The checkpoint hook refuses values that are not, so the state of unused codes must be."""
    model = DiscreteVAE(num_codes=16, hidden_dims=8, code_dims=8, num_groups=2)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
