"""The tokenizer's network and ids against the official encoder."""
import json

import numpy as np
import pytest
import torch

from cae_mm.models.targets.dalle import DALLEEncoder, DALLETokenizer


@pytest.fixture(params=['dalle_encoder'])
def official(request, golden):
    """Constructor arguments and arrays of a golden encoder."""
    entry = json.loads((golden / 'manifest.json').read_text())['entries'][request.param]
    arrays = np.load(golden / entry['file'])
    arguments = entry['constructor']
    sizes = dict(num_codes=arguments['vocab_size'], hidden_dims=arguments['n_hid'],
                 blocks_per_group=arguments['n_blk_per_group'])
    weights = {name.removeprefix('weights/'): torch.from_numpy(arrays[name])
               for name in arrays.files if name.startswith('weights/')}
    return sizes, weights, arrays


def test_dalle_encoder(official):
    sizes, weights, arrays = official
    encoder = DALLEEncoder(**sizes)
    encoder.load_state_dict(weights)
    with torch.no_grad():
        logits = encoder(torch.from_numpy(arrays['in/mapped']))
    want = torch.from_numpy(arrays['out/logits'])
    torch.testing.assert_close(logits, want, rtol=0, atol=2e-5)
    assert torch.equal(logits.argmax(1).flatten(1),
                       torch.from_numpy(arrays['out/ids']).flatten(1).long())


def test_masked_ids(official, tmp_path):
    sizes, weights, arrays = official
    torch.save(weights, tmp_path / 'encoder.pth')
    init_cfg = dict(type='Pretrained', checkpoint=tmp_path / 'encoder.pth')
    tokenizer = DALLETokenizer(**sizes, init_cfg=init_cfg)
    images = torch.from_numpy(arrays['in/image_uint8']).float() / 255
    ids = torch.from_numpy(arrays['out/ids']).flatten(1).long()
    masked = torch.rand(ids.shape).argsort(1)[:, :ids.shape[1] // 2]
    found = tokenizer.get_targets(images, masked)
    assert torch.equal(found, ids.gather(1, masked))
