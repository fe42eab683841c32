"""Runs read and write checkpoints without code in them, and notice what was changed."""
import os

import pytest
import torch

from cae_mm.checkpoint.files import read_checkpoint


class Call:
    """What is unpickled by running a text."""

    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        return exec, (self.text,)


def touch(path):
    return f'open({str(path)!r}, "w").close()'


def test_a_runner_refuses(toy_runner, tmp_path):
    toy_runner().train()
    trace, path = tmp_path / 'trace', tmp_path / 'work/epoch_2.pth'
    content = read_checkpoint(path)
    hostile = content | dict(message_hub=Call(touch(trace)))
    torch.save(hostile, path)
    for changes in (dict(resume=True, load_from=str(path)), dict(load_from=str(path))):
        with pytest.raises(ValueError, match='epoch_2.pth is refused: it asks for builtins.exec'):
            toy_runner(**{'train_cfg.max_epochs': 3}, **changes).train()
    resumed = toy_runner(**{'train_cfg.max_epochs': 2}, resume=True)
    resumed.train()
    assert resumed.model.calls == 3  # from the first epoch, whose checkpoint is the newest whole one
    # mmengine would run this text as a config.
    torch.save(content | dict(meta=content['meta'] | dict(config=touch(trace), cfg=touch(trace))), path)
    toy_runner(**{'train_cfg.max_epochs': 3}, resume=True).train()
    assert not trace.exists()


@pytest.mark.parametrize('part, value, problem', [
    ('state_dict', [1.], 'there is no state dict'),
    ('state_dict', {'layer.weight': None}, 'is no array'),
    ('meta', 7, 'its meta is a int'), ('message_hub', 'text', 'its message_hub is a str'),
    ('optimizer', [], 'its optimizer is a list'),
    ('message_hub', dict(log_scalars=7), 'no history of a log')])
def test_a_part_of_another_kind(toy_runner, tmp_path, part, value, problem):
    toy_runner().train()
    content = torch.load(tmp_path / 'work/epoch_2.pth')
    del content['meta']['checksums']
    path = tmp_path / 'other.pth'
    torch.save(content | {part: value}, path)
    with pytest.raises(ValueError, match=f'other.pth is refused: .*{problem}'):
        toy_runner(load_from=str(path)).train()


def test_ours_are_plain_and_logs_go_on(toy_runner, tmp_path):
    toy_runner().train()
    path = tmp_path / 'work/epoch_2.pth'
    plain = torch.load(path, weights_only=True)  # with no class allowed
    history = plain['message_hub']['log_scalars']['train/loss']
    assert history['log'].tolist() and len(history['log']) == len(history['count']) == 6
    resumed = toy_runner(resume=True, **{'train_cfg.max_epochs': 3})
    resumed.train()
    scalars = resumed.message_hub.log_scalars['train/loss'].data[0]
    assert len(scalars) == 9 and scalars[:6].tolist() == history['log'].tolist()


def test_older_ones_go_on_as_ours_do(toy_runner, tmp_path):
    """Those with objects of mmengine and numpy in them, and without checksums."""
    runner = toy_runner()
    runner.train()
    path, older = tmp_path / 'work/epoch_2.pth', tmp_path / 'older.pth'
    content = torch.load(path)
    del content['meta']['checksums']
    torch.save(content | dict(message_hub=runner.message_hub.state_dict()), older)
    ends = []
    for start in (older, path):
        resumed = toy_runner(resume=True, load_from=str(start), **{'train_cfg.max_epochs': 3})
        resumed.train()
        ends.append((resumed.model.layer.weight.item(),
                     resumed.message_hub.log_scalars['train/loss'].data[0].tolist()))
    assert ends[0] == ends[1] and len(ends[0][1]) == 9


CHANGES = {
    'state_dict.layer.weight': lambda c: c['state_dict']['layer.weight'].add_(1e-6),
    'such as state_dict/layer.bias': lambda c: c['state_dict'].pop('layer.bias'),
    'such as state_dict/layer.extra': lambda c: c['state_dict'].update({'layer.extra': torch.ones(1)}),
    'such as optimizer/state/0/exp_avg,': lambda c: c['optimizer']['state'][0].update(
        exp_avg=c['optimizer']['state'][0]['exp_avg'].double()),
    'optimizer.state.1.exp_avg_sq': lambda c: c['optimizer']['state'][1]['exp_avg_sq'].mul_(2),
    'numbers and texts': lambda c: c['meta'].update(iter=5),
    'numbers and texts ': lambda c: c['optimizer']['param_groups'][0].update(lr=0.2),
    'numbers and texts  ': lambda c: c['param_schedulers'][0].update(last_step=1),
    'message_hub.log_scalars.train/loss.log': lambda c: c['message_hub']['log_scalars']['train/loss'][
        'log'].add_(1),
}


@pytest.mark.parametrize('what', CHANGES)
def test_what_was_changed_is_noticed(toy_runner, tmp_path, what):
    toy_runner(**{'train_cfg.max_epochs': 1}).train()
    path = tmp_path / 'work/epoch_1.pth'
    content = torch.load(path)
    CHANGES[what](content)
    torch.save(content, path)
    with pytest.raises(ValueError, match=rf"1.pth is refused.*{what.strip()}.*delete meta\['checksums'\]"):
        toy_runner(resume=True).train()
    del content['meta']['checksums']
    torch.save(content, path)
    read_checkpoint(path)


def test_each_flipped_bit_of_what_is_loaded_is_noticed(toy_runner, tmp_path):
    toy_runner(**{'train_cfg.max_epochs': 1}).train()
    path = tmp_path / 'work/epoch_1.pth'
    content, whole = path.read_bytes(), read_checkpoint(path)
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for place in torch.randint(8 * len(content), (200,), generator=generator).tolist():
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            found = read_checkpoint(path)
        except (ValueError, OSError) as error:
            assert '\n' not in str(error)
            refused += 1
        else:  # the names and fillings of an archive hold nothing
            assert str(found) == str(whole)
    assert refused > 100 and os.path.getsize(path) == len(content)
