"""Checkpoints are read safely and loaded whole or not at all."""
import pytest
import torch

from cae_mm.checkpoint.loader import StrictLoadHook, load_backbone, read_checkpoint
from cae_mm.models import CAEViT


def vit(**kwargs):
    return CAEViT(**dict(dict(arch=dict(embed_dims=16, num_layers=2, num_heads=2), img_size=16,
                              patch_size=4), **kwargs))


@pytest.fixture
def checkpoint(tmp_path):
    source = vit()
    path = tmp_path / 'model.pth'
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in source.state_dict().items()}), path)
    return source, path


def test_init_cfg_loads_the_whole_encoder(checkpoint):
    source, path = checkpoint
    model = vit(init_cfg=dict(type='Pretrained', checkpoint=str(path), prefix='backbone.'))
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def test_positions_of_another_grid_are_recomputed(checkpoint):
    source, path = checkpoint
    model = vit(img_size=(24, 32))
    load_backbone(model, path)
    assert torch.equal(model.cls_token, source.cls_token)
    assert model.pos_embed.shape == (1, 49, 16)
    images = torch.randn(1, 3, 24, 32)
    torch.testing.assert_close(model.eval()(images)[0], source.eval()(images)[0])


@pytest.mark.parametrize('kwargs, message', [
    (dict(arch=dict(embed_dims=32, num_layers=2, num_heads=2)), 'of another shape'),
    (dict(arch=dict(embed_dims=16, num_layers=3, num_heads=2)), 'missing: blocks.2'),
    (dict(arch=dict(embed_dims=16, num_layers=1, num_heads=2)), 'unexpected: blocks.1'),
    (dict(patch_size=8), r'patch_embed.weight: \(16, 3, 4, 4\) in the file, \(16, 3, 8, 8\)'),
])
def test_another_architecture_is_refused(checkpoint, kwargs, message):
    model = vit(**kwargs)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError, match=message):
        load_backbone(model, checkpoint[1])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_wrong_prefix_is_refused(checkpoint):
    with pytest.raises(RuntimeError, match="beginning with 'encoder.'"):
        load_backbone(vit(), checkpoint[1], prefix='encoder.')


def test_a_position_table_that_cannot_be_recomputed_is_refused(tmp_path):
    source = vit()
    source.pos_embed.normal_()
    path = tmp_path / 'noise.pth'
    torch.save({f'backbone.{k}': v for k, v in source.state_dict().items()}, path)
    with pytest.raises(RuntimeError, match='not the sine-cosine one'):
        load_backbone(vit(img_size=32), path)


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


def test_files_are_read_without_running_them(tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint at'):
        read_checkpoint(tmp_path / 'nothing.pth')
    torch.save(Harmful(), tmp_path / 'harmful.pth')
    with pytest.raises(ValueError, match='save module.state_dict'):
        read_checkpoint(tmp_path / 'harmful.pth')
    torch.save(vit().state_dict(), tmp_path / 'whole.pth')
    content = (tmp_path / 'whole.pth').read_bytes()
    (tmp_path / 'cut.pth').write_bytes(content[:len(content) // 2])
    with pytest.raises(ValueError, match='truncated'):
        read_checkpoint(tmp_path / 'cut.pth')


def test_a_log_history_can_be_read(tmp_path):
    from mmengine.logging import MessageHub
    hub = MessageHub.get_instance('test_a_log_history')
    hub.update_scalar('train/loss', 1.5)
    torch.save(dict(message_hub=hub.state_dict(), state_dict={}), tmp_path / 'run.pth')
    history = read_checkpoint(tmp_path / 'run.pth')['message_hub']['log_scalars']['train/loss']
    assert history.current() == 1.5


def test_the_runner_hook_refuses_before_loading(checkpoint):
    class Runner:
        model = torch.nn.ModuleDict(dict(backbone=vit()))
    state = torch.load(checkpoint[1])
    StrictLoadHook().after_load_checkpoint(Runner, state)
    del state['state_dict']['backbone.norm.bias']
    with pytest.raises(RuntimeError, match='1 missing: backbone.norm.bias'):
        StrictLoadHook().after_load_checkpoint(Runner, state)
