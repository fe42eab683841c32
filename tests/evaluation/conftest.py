"""A labelled folder, an encoder small enough for tests, and processes that share the work."""
import gc
import multiprocessing
import os
from datetime import timedelta

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from PIL import Image

import cae_mm  # noqa: F401

COLORS = {'blue': (0, 0, 200), 'green': (0, 200, 0), 'red': (200, 0, 0)}


@pytest.fixture(scope='session', autouse=True)
def quick_collections():
    """Datasets collect garbage while they are built: spare them the packages' objects."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def folder(tmp_path):
    """train/ and val/ with 12 and 6 noisy pictures of each of three colours, 16 x 16 pixels."""
    rng = np.random.default_rng(0)
    for split, number in (('train', 12), ('val', 6)):
        for name, color in COLORS.items():
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(number):
                image = np.clip(rng.normal(color, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(image).save(tmp_path / split / name / f'{i}.png')
    return tmp_path


@pytest.fixture
def backbone():
    """A CAEViT of two blocks for 16 x 16 pixels."""
    return MODELS.build(dict(
        type='mmpretrain.CAEViT', img_size=16, patch_size=8, drop_path_rate=0.5,
        arch=dict(embed_dims=16, num_layers=2, num_heads=2)))


@pytest.fixture
def preprocess():
    """The data preprocessor of pre-training."""
    return MODELS.build(dict(type='mmpretrain.CAEDataPreprocessor'))


@pytest.fixture
def on_ranks(tmp_path):
    """A function that calls another one on n ranks, forked processes of a gloo group.

    It gives the results, or the exceptions, in the order of the ranks. A rank that waits in vain has the
    exception of a time-out.
    """
    context, runs = multiprocessing.get_context('fork'), []

    def work(function, rank, number, rendezvous, pipe):
        torch.set_num_threads(1)  # OpenMP's threads are not forked
        torch.distributed.init_process_group(
            'gloo', rank=rank, world_size=number, init_method=rendezvous, timeout=timedelta(seconds=30))
        try:
            result = function()
        except Exception as error:
            result = error
        pipe.send(result)
        pipe.recv()  # until the others have all that this process sent them
        os._exit(0)

    def run(number, function):
        runs.append(number)
        rendezvous = f'file://{tmp_path}/rendezvous{len(runs)}'
        ours, theirs = zip(*(context.Pipe() for _ in range(number)), strict=True)
        processes = [context.Process(target=work, args=(function, rank, number, rendezvous, theirs[rank]))
                     for rank in range(number)]
        for process in processes:
            process.start()
        try:
            assert all(pipe.poll(100) for pipe in ours), 'a rank did not come to an end'
            results = [pipe.recv() for pipe in ours]
            for pipe in ours:
                pipe.send(None)
        finally:
            for process in processes:
                process.join(5)
                process.kill()
        return results

    return run
