"""What a run logs, and when it stops."""
import json

import pytest
import torch

from cae_mm.engine import monitor


def test_logs_every_quantity(toy_runner, tmp_path):
    toy_runner().train()
    log, = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line['iter'] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert set(lines[0]) >= {'loss', 'loss_line', 'lr', 'grad_norm', 'images_per_s', 'data_share',
                             'data_time', 'time', 'memory', 'progress', 'epoch', 'iter'}
    assert 'base_lr' not in lines[0]
    assert [line['lr'] for line in lines] == pytest.approx([0, 0.05, 0.1, 0.1, 0.075, 0.025])
    assert [line['progress'] for line in lines] == pytest.approx([100 * i / 6 for i in range(1, 7)])
    assert all(0 <= line['data_share'] <= 1 and line['images_per_s'] > 0 for line in lines)
    assert all(line['memory'] > 10 for line in lines)


@pytest.mark.parametrize('iteration, kept', [(2, []), (5, ['epoch_1.pth'])])
def test_stops_at_a_loss_that_is_not_finite(toy_runner, tmp_path, iteration, kept):
    runner = toy_runner(**{'model.bad_iter': iteration})
    with pytest.raises(FloatingPointError) as error:
        runner.train()
    lr = {2: 0.05, 5: 0.075}[iteration]
    for part in (f'iteration {iteration}:', 'loss inf', 'loss_line inf', f'lr {lr}', '--resume'):
        assert part in str(error.value)
    assert [path.name for path in (tmp_path / 'work').glob('*.pth')] == kept


def test_values_kept_on_the_device_are_checked_before_saving(toy_runner, tmp_path, monkeypatch):
    """As on a GPU, where values are only read at log lines and before a checkpoint."""
    monkeypatch.setattr(torch.Tensor, 'is_cuda', True)
    runner = toy_runner(**{
        'model.bad_iter': 4, 'default_hooks.logger.interval': 50, 'train_cfg.max_epochs': 4,
        'default_hooks.checkpoint': dict(type='SafeCheckpointHook', interval=5, by_epoch=False)})
    with pytest.raises(FloatingPointError, match='iteration 4: loss inf'):
        runner.train()
    assert not list((tmp_path / 'work').glob('*.pth'))
    assert runner.iter == 4


@pytest.mark.parametrize('name, peak', [
    ('NVIDIA A100-SXM4-80GB', 312e12), ('NVIDIA A10', 125e12), ('NVIDIA A40', 149.7e12),
    ('NVIDIA L4', 121e12), ('NVIDIA L40S', 362e12), ('NVIDIA H100 PCIe', 756e12),
    ('NVIDIA H100 80GB HBM3', 989e12), ('NVIDIA H200', 989e12), ('NVIDIA H200 NVL', None),
    ('NVIDIA GH200 480GB', None), ('NVIDIA B200', 2250e12), ('NVIDIA GB200', 2500e12),
    ('NVIDIA RTX A4000', 76.7e12), ('NVIDIA RTX A6000', 154.8e12), ('NVIDIA GeForce RTX 4090', 165.2e12),
    # Others, whose names contain those of the table.
    ('NVIDIA A10G', None), ('NVIDIA RTX A400', None), ('NVIDIA RTX A5000 Laptop GPU', None),
    ('NVIDIA GeForce RTX 4090 D', None), ('NVIDIA GeForce RTX 3090 Ti', None), ('Quadro P400', None),
    ('NVIDIA A100-SXM4-40GB MIG 1g.5gb', None)])
def test_peaks(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: name)
    assert monitor.device_peak_flops() == peak


def test_utilisation(toy_runner, tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, 'device_peak_flops', lambda: 1e6)
    runner = toy_runner(**{'train_cfg.max_epochs': 1})
    runner.model.flops_per_image = lambda: 1e3
    runner.train()
    scalars = runner.message_hub.log_scalars
    assert scalars['train/mfu'].current() == pytest.approx(
        scalars['train/images_per_s'].current() / 1000)
