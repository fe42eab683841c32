"""A model that two processes share, and the file that they write, against the official implementation."""
import torch

from cae_mm.checkpoint.convert import convert_file
from cae_mm.checkpoint.files import read_weights
from cae_mm.engine.sharding import ShardedModel, gathered, whole_states
from tests.parity.test_pretrain import build, close, load, weights


def check(model, arrays):
    images = arrays['in/images']
    out = model.forward_masked(images, arrays['in/bool_masked_pos'], images)
    close(out.latent, arrays['out/encoder'])
    close(out.predicted, arrays['out/latent_predict'])
    close(out.target, arrays['out/latent_target'])
    close(out.logits.flatten(0, 1), arrays['out/logits'])
    close(out.loss_reconstruct + out.loss_align, arrays['out/loss_total'])


def test_shared_out_and_written_to_a_file(golden, on_ranks, tmp_path):
    entry, arrays = load(golden, 'pretrain_proj')
    given, ids = weights(arrays), arrays['in/token_ids']

    def work():
        model = build(entry, given, ids).eval()
        wrapper = ShardedModel(model)
        with gathered(wrapper), torch.no_grad():
            check(model, arrays)
        with whole_states(model, torch.optim.SGD(model.parameters(), lr=1)):
            state = model.state_dict()
        if torch.distributed.get_rank() == 0:
            torch.save(dict(state_dict=state), tmp_path / 'ours.pth')

    assert on_ranks(2, work) == [None, None]
    convert_file(tmp_path / 'ours.pth', tmp_path / 'official.pth', 'official')
    written, _ = read_weights(tmp_path / 'official.pth')
    check(build(entry, {name: written[name] for name in written}, ids).eval(), arrays)
