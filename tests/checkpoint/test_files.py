"""Checkpoint files are read without running them, and appear whole or not at all."""
import argparse
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cae_mm.checkpoint.files import read_checkpoint, read_weights, state_of, write_checkpoint


def test_what_is_no_whole_file_is_refused(tmp_path, state):
    with pytest.raises(FileNotFoundError, match='no checkpoint at'):
        read_checkpoint(tmp_path / 'nothing.pth')
    for suffix in ('.pth', '.safetensors'):
        write_checkpoint(state('encoder'), tmp_path / f'whole{suffix}')
        content = (tmp_path / f'whole{suffix}').read_bytes()
        (tmp_path / f'cut{suffix}').write_bytes(content[:len(content) // 2])
        with pytest.raises(ValueError, match=f'cut{suffix} is refused'):
            read_checkpoint(tmp_path / f'cut{suffix}')


def test_a_command_line_can_be_read(tmp_path):
    """The official code and MAE save theirs beside the model."""
    args = argparse.Namespace(lr=1.5e-3, opt_betas=None, device='cuda', window_size=(14, 14))
    torch.save(dict(model={'encoder.norm.bias': torch.ones(3)}, args=args), tmp_path / 'run.pth')
    checkpoint = read_checkpoint(tmp_path / 'run.pth')
    assert checkpoint['args'] == vars(args) and list(state_of(checkpoint)) == ['encoder.norm.bias']


@pytest.mark.parametrize('wrap', [
    lambda s: s, lambda s: dict(state_dict=s, epoch=3), lambda s: dict(model=s), lambda s: dict(module=s),
    lambda s: {'module.' + k: v for k, v in s.items()},
    lambda s: dict(model={'_orig_mod.' + k: v for k, v in s.items()})])
def test_the_state_dict_is_found(wrap):
    state = {'a.weight': torch.ones(1), 'module_list.b': torch.ones(2)}
    assert state_of(wrap(state)) == state


@pytest.mark.parametrize('content', [
    dict(student={'a': torch.ones(1)}), {}, [torch.ones(1)], torch.ones(1)])
def test_without_a_state_dict_there_is_an_error(content):
    with pytest.raises(ValueError, match='no state dict, neither bare'):
        state_of(content)


def test_a_kill_while_writing_leaves_the_former_file(tmp_path, monkeypatch):
    path = tmp_path / 'model.safetensors'
    write_checkpoint(dict(a=torch.ones(2)), path)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', die)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(dict(a=torch.zeros(2)), path)
    assert torch.equal(read_checkpoint(path)['state_dict']['a'], torch.ones(2))


def test_files_hold_their_tensors_and_no_more(tmp_path):
    big = torch.randn(1000, 8)
    views = dict(a=big[:2], b=big[:2], c=big.t()[:1])
    for name in ('x.pth', 'x.pt', 'x.safetensors'):
        write_checkpoint(views, tmp_path / name)
        got = read_checkpoint(tmp_path / name)['state_dict']
        assert all(torch.equal(got[key], value) for key, value in views.items())
        assert (tmp_path / name).stat().st_size < 10000
    assert safetensors.torch.load_file(tmp_path / 'x.safetensors').keys() == views.keys()
    with pytest.raises(ValueError, match='x.bin: name a .pth, .pt or .safetensors'):
        write_checkpoint(views, tmp_path / 'x.bin')


@pytest.mark.skipif(not Path('/proc/self/io').is_file(), reason='counts the bytes read as Linux does')
def test_what_is_not_used_is_not_read(tmp_path):
    """Ranks that want the encoder do not read the optimizer's state; no zip file is read at once."""
    big = {f'state.{i}': torch.randn(1000, 1000) for i in range(10)}
    torch.save(dict(state_dict={'a': torch.ones(3)}, optimizer=big), tmp_path / 'run.pth')
    torch.save(dict(a=torch.ones(3)), tmp_path / 'old.pth', _use_new_zipfile_serialization=False)

    def read():
        return int(Path('/proc/self/io').read_text().split()[1])  # rchar: of all read calls

    before = read()
    state, _ = read_weights(tmp_path / 'run.pth')
    assert torch.equal(state['a'], torch.ones(3)) and read() - before < 1_000_000
    assert torch.equal(read_checkpoint(tmp_path / 'run.pth')['optimizer']['state.9'], big['state.9'])
    assert torch.equal(read_checkpoint(tmp_path / 'old.pth')['a'], torch.ones(3))
