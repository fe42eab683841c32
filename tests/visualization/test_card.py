"""A model card tells what the checkpoint and its log tell, and no more."""
import json

import pytest
import torch

from cae_mm.checkpoint.export import read_model
from cae_mm.checkpoint.facts import facts_of
from cae_mm.models import CAEViT
from cae_mm.visualization.card import model_card

CONFIG = """data_root = '/home/me/data/birds'
model = dict(type='ContextAutoencoder', init_cfg=dict(checkpoint='/home/me/d-vae.pth'))
"""


@pytest.fixture
def checkpoint(tmp_path):
    encoder = CAEViT(dict(embed_dims=24, num_layers=6, num_heads=4), img_size=32, patch_size=8)
    meta = dict(cae_mm=facts_of(encoder), epoch=2, iter=20, seed=7, cfg=CONFIG, images=dict(dataset=12000))
    state = {f'backbone.{name}': value for name, value in encoder.state_dict().items()}
    torch.save(dict(state_dict=state, meta=meta), tmp_path / 'epoch_2.pth')
    return tmp_path / 'epoch_2.pth'


@pytest.mark.parametrize('to, use', [
    ('timm', 'features_only=True, out_indices=(1, 2, 3, 5)'),
    ('huggingface', "BeitBackbone.from_pretrained('birds', out_indices=[2, 3, 4, 6])")])
def test_card(checkpoint, tmp_path, to, use):
    log = tmp_path / '20260101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('\n'.join(map(json.dumps, [
        dict(loss=3., epoch=1, iter=10, step=10), {'knn/top1_k20': 41., 'step': 1},
        dict(loss=2., epoch=2, iter=20, step=20), {'knn/top1_k20': 52.5, 'step': 2},
        dict(loss=1., epoch=3, iter=30, step=30), {'knn/top1_k20': 63., 'step': 3}])))
    card = model_card(read_model(checkpoint), checkpoint, tmp_path / 'birds', to, ['a line'], 'cc-by-4.0')
    assert card.startswith('---\nlibrary_name: ') and '\nlicense: cc-by-4.0\n' in card
    for text in ('# birds', '- a line', '12,000 images, birds', '| loss | 2 |', '| knn/top1_k20 | 52.5 |',
                 '2 epochs, 20 iterations, 7 as the seed:', "checkpoint='d-vae.pth'", use):
        assert text in card
    assert '/home' not in card and str(tmp_path) not in card


def test_card_of_a_bare_checkpoint(checkpoint, tmp_path):
    torch.save(torch.load(checkpoint)['state_dict'], checkpoint)
    card = model_card(read_model(checkpoint, num_heads=4), checkpoint, tmp_path / 'x', 'timm', [])
    assert card.count('The checkpoint does not say.') == 2 and 'No log of the training' in card
    assert 'license:' not in card and 'Not stated.' in card
