"""Detection and segmentation through the same tools: several processes, checkpoints, resuming."""
import json
from pathlib import Path

import pytest
import torch

from cae_mm.checkpoint.files import read_checkpoint


def test_two_processes_on_cpu(dense, run_tool, call_tool, tmp_path):
    config, options, encoder = dense
    work, metrics = tmp_path / 'work', tmp_path / 'metrics.json'
    options = ['--pretrained', tmp_path / 'encoder.pth', *options]
    ended = run_tool('dist_train.sh', config, 2, '--work-dir', work, *options,
                     'lr=1e-50')
    assert ended.returncode == 0, ended.stdout + ended.stderr
    checkpoint = work / (work / 'last_checkpoint').read_text()
    state = read_checkpoint(checkpoint)['state_dict']
    # Nothing was learned, and what these models do not have is the encoder's final norm.
    assert all(torch.equal(state[name], value) for name, value in encoder.items()
               if not name.startswith('backbone.norm.'))
    call_tool('test.py', config, checkpoint, '--out', metrics, '--work-dir', work, *options[2:])
    scalars = min(work.glob('*/vis_data/scalars.json'))  # the first: of the training
    [*_, logged] = map(json.loads, scalars.read_text().splitlines())
    tested = json.loads(metrics.read_text())
    assert {key: logged[key] for key in tested} == pytest.approx(tested, nan_ok=True)
    assert sum(key.endswith(('mAP', 'mIoU')) for key in tested) in (1, 2)

    more = {'epoch_2.pth': 'train_cfg.max_epochs=3', 'iter_4.pth': 'train_cfg.max_iters=6'}
    call_tool('train.py', config, '--work-dir', work, '--resume', *options, 'train_dataloader.batch_size=4',
              more[checkpoint.name], *(f'val_{part}=None' for part in (
                  'dataloader', 'evaluator', 'cfg')))
    assert (work / 'last_checkpoint').read_text().endswith(('epoch_3.pth', 'iter_6.pth'))


@pytest.mark.parametrize('dense', ['det'], indirect=True)
def test_a_checkpoint_without_the_encoder(dense, call_tool, tmp_path):
    config, options, _ = dense
    torch.save(dict(state_dict={'head.weight': torch.zeros(2, 2)}), tmp_path / 'head.pth')
    with pytest.raises(ValueError, match='head.pth: '):
        call_tool('train.py', config, '--work-dir', tmp_path / 'work', '--pretrained',
                  tmp_path / 'head.pth', *options)


def test_a_config_that_only_tests(call_tool, tmp_path):
    config = Path(__file__).parents[2] / 'configs/seg/upernet_cae_vitb_160k_ade20k_ms.py'
    with pytest.raises(ValueError, match='_ms.py is for tools/test.py alone'):
        call_tool('train.py', config, '--work-dir', tmp_path)


@pytest.mark.parametrize('dense', ['seg'], indirect=True)
def test_windows_and_heads_that_do_not_fit(dense, call_tool, tmp_path):
    config, options, _ = dense
    work = ['--work-dir', tmp_path / 'work', '--pretrained', 'none']
    with pytest.raises(ValueError, match='decode_head has 7 classes, the data 11: .* num_classes=11'):
        call_tool('train.py', config, *work, *options, 'model.decode_head.num_classes=7')
    with pytest.raises(ValueError, match='is for 64x64 pixels, the image has 60x60: crop or pad'):
        call_tool('train.py', config, *work, *(str(option).replace('crop_size=(64,64)', 'crop_size=(60,60)')
                                               for option in options))
