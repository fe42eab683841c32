"""The linear probe on features whose answer is known."""
import pytest
import torch
import torch.nn.functional as F
from mmengine.dist import get_rank

from cae_mm.evaluation.lbfgs_probe import fit, lbfgs_probe
from cae_mm.evaluation.ranks import together


def make(n, noise, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator)
    features = F.one_hot(labels, 4).float() @ torch.eye(4, 16) * 1e3
    return features + 1e3 * noise * torch.randn(n, 16, generator=generator) + 5e4, labels


def test_separable_features_are_separated():
    assert lbfgs_probe(make(300, 0.05, 0), make(100, 0.05, 1))['linear/top1'] == 100


def test_random_labels_are_not_learned():
    features, labels = make(400, 1.0, 2)
    shuffled = labels[torch.randperm(400, generator=torch.Generator().manual_seed(3))]
    assert lbfgs_probe((features[:300], shuffled[:300]),
                        (features[300:], shuffled[300:]))['linear/top1'] < 45


def test_is_deterministic():
    train, val = make(200, 0.6, 4), make(200, 0.6, 5)
    first = lbfgs_probe(train, val)
    torch.rand(3)  # the global generator plays no part
    assert lbfgs_probe(train, val) == first


def test_noise_asks_for_a_stronger_penalty():
    clean = lbfgs_probe(make(60, 0.05, 6), make(50, 0.05, 7))
    noisy = lbfgs_probe(make(60, 1.2, 6), make(50, 1.2, 7), penalties=(1e-1, 1e-5))
    assert clean['linear/top1'] == 100
    assert noisy['linear/penalty'] == 1e-1


def test_fit_is_a_minimum():
    features, labels = make(200, 0.8, 8)
    features = (features - features.mean(0)) / features.std(0)
    weight = fit(features, labels, 4, 1e-2).requires_grad_()
    loss = F.cross_entropy(features @ weight[:-1] + weight[-1], labels)
    (loss + 1e-2 * weight[:-1].square().sum()).backward()
    assert weight.grad.abs().max() < 1e-3


def test_never_all_logits_and_the_same_result(monkeypatch):
    features, labels = make(200, 0.8, 8)
    features = (features - features.mean(0)) / features.std(0)
    whole = fit(features, labels, 4, 1e-2)
    sizes, addmm = [], torch.addmm
    monkeypatch.setattr(torch, 'addmm', lambda *args: sizes.append(len(args[1])) or addmm(*args))
    monkeypatch.setitem(fit.__globals__, 'MAX_LOGITS', 4 * 30)
    torch.testing.assert_close(fit(features, labels, 4, 1e-2), whole, atol=1e-3, rtol=0)
    assert set(sizes) == {30, 20}


def test_the_sweep_is_reported():
    results = lbfgs_probe(make(100, 1.0, 6), make(50, 1.0, 7), penalties=(1e-4, 0.5))
    sweep = {name: value for name, value in results.items() if 'held_out' in name}
    assert list(sweep) == ['linear/held_out_0.5', 'linear/held_out_0.0001']
    assert results['linear/penalty'] == 0.5 and sweep['linear/held_out_0.5'] == max(sweep.values())
    assert 'linear/top5' not in results  # four classes


def test_top5():
    def many(seed):
        features, labels = make(300, 1.0, seed)
        return features, labels + 4 * (torch.arange(300) % 2)  # the half that is not in the features

    results = lbfgs_probe(many(10), many(11))
    assert results['linear/top1'] < results['linear/top5'] < 100


def test_negative_penalty():
    with pytest.raises(ValueError, match=r'penalties=\[0.1, -1\]: they weigh squares'):
        lbfgs_probe(make(20, 1, 0), make(20, 1, 1), penalties=(0.1, -1))


def test_one_class():
    features, labels = make(50, 0.1, 9)
    with pytest.raises(ValueError, match='all 50 training images are of one class'):
        lbfgs_probe((features, labels * 0), (features, labels))


@pytest.mark.parametrize('images', [201, 4])  # the second rank has no held-out image of 4
def test_ranks_share_the_images(on_ranks, images):
    train, val = make(images, 0.8, 12), make(101, 0.8, 13)
    train[1][:4] = torch.arange(4)
    settings = dict(penalties=(1e-1, 1e-3))
    expected = lbfgs_probe(train, val, **settings)
    for found in on_ranks(2, lambda: lbfgs_probe(train, val, **settings)):
        assert found == expected


def test_weights_of_ranks_are_those_of_one(on_ranks):
    features, labels = make(200, 0.8, 8)
    features = (features - features.mean(0)) / features.std(0)

    def work():
        rows = slice(get_rank(), None, 2)
        return fit(features[rows], labels[rows], 4, 1e-2).numpy()

    first, second = map(torch.from_numpy, on_ranks(2, work))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, fit(features, labels, 4, 1e-2), atol=1e-3, rtol=0)


@pytest.mark.parametrize('failing', [0, 1])
def test_an_error_of_one_rank_between_two_steps(on_ranks, monkeypatch, failing):
    calls, cross_entropy = [], F.cross_entropy

    def exhausted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 5 and get_rank() == failing:
            raise torch.OutOfMemoryError('no memory')
        return cross_entropy(*args, **kwargs)

    def work():
        with together():
            lbfgs_probe(make(100, 0.8, 12), make(100, 0.8, 13))

    monkeypatch.setattr(F, 'cross_entropy', exhausted)
    message = f'rank {failing}: OutOfMemoryError: no memory'
    assert [str(error) for error in on_ranks(2, work)] == [message, message]
