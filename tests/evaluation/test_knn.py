"""k-NN against a brute-force computation."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cae_mm.evaluation.knn import knn_accuracy, knn_ranking


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(5, 12, generator=generator)
    labels = torch.randint(5, (400,), generator=generator)
    features = centers[labels] + 1.5 * torch.randn(400, 12, generator=generator)
    return (features[:300], labels[:300]), (features[300:], labels[300:])


def knn_predict(*args, **options):
    """For each k the labels with most votes."""
    return {k: ranking[:, 0] for k, ranking in knn_ranking(*args, **options).items()}


def brute_force(train, labels, features, k, temperature):
    train = train / np.linalg.norm(train, axis=1, keepdims=True)
    predictions = []
    for feature in features / np.linalg.norm(features, axis=1, keepdims=True):
        cosine = train @ feature
        votes = np.zeros(labels.max() + 1)
        for i in np.argsort(-cosine)[:k]:
            votes[labels[i]] += np.exp(cosine[i] / temperature)
        predictions.append(votes.argmax())
    return np.array(predictions)


@pytest.mark.parametrize('k, temperature', [(1, 0.07), (7, 0.07), (20, 1.0), (300, 0.07)])
def test_equals_brute_force(data, k, temperature):
    (train, labels), (val, _) = data
    found = knn_predict(train, labels, val, k, temperature)[k]
    expected = brute_force(train.double().numpy(), labels.numpy(), val.double().numpy(), k,
                           temperature)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_the_chunk_does_not_matter(data):
    (train, labels), (val, _) = data
    whole = knn_predict(train, labels, val, (10, 20), chunk=1000)
    parts = knn_predict(train, labels, val, (10, 20), chunk=3)  # 48 training images at a time
    assert all(torch.equal(whole[k], parts[k]) for k in (10, 20))


@pytest.mark.parametrize('number', [2, 3])
def test_ranks_share_the_images(data, on_ranks, number):
    """The last round of chunks has one for the first rank alone, or is a full one."""
    (train, labels), (val, _) = data
    whole = knn_ranking(train, labels, val, (10, 20), chunk=34)
    for found in on_ranks(number, lambda: knn_ranking(train, labels, val, (10, 20), chunk=34)):
        assert all(torch.equal(found[k], whole[k]) for k in (10, 20))


def test_never_the_whole_similarity_matrix(data, monkeypatch):
    sizes, topk = [], torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, 'topk',
                        lambda self, *args: sizes.append(self.shape) or topk(self, *args))
    (train, labels), (val, _) = data
    knn_predict(train, labels, val, 5, chunk=4)
    assert max(rows for rows, _ in sizes) == 4
    assert max(columns for _, columns in sizes) == 4 * 16 + 5


def test_accuracy_is_in_percent(data):
    train, val = data
    results = knn_accuracy(train, val, (10, 20))
    expected = (knn_predict(*train, val[0], 10)[10] == val[1]).float().mean().item()
    assert results.keys() == {'knn/top1_k10', 'knn/top1_k20'}
    assert results['knn/top1_k10'] == pytest.approx(100 * expected)
    assert results['knn/top1_k10'] > 50


def test_top5_counts_the_classes_with_most_votes():
    generator = torch.Generator().manual_seed(1)
    train, labels = torch.randn(200, 8, generator=generator), torch.arange(200) % 9
    val, truth = torch.randn(60, 8, generator=generator), torch.arange(60) % 9
    results = knn_accuracy((train, labels), (val, truth), 30)
    hits = []
    for feature, label in zip(F.normalize(val), truth, strict=True):
        cosine, nearest = (F.normalize(train) @ feature).topk(30)
        votes = labels[nearest].bincount((cosine / 0.07).exp(), minlength=9)
        hits.append(bool(label in votes.argsort(descending=True)[:5]))
    assert results.keys() == {'knn/top1_k30', 'knn/top5_k30'}
    assert results['knn/top5_k30'] == pytest.approx(100 * sum(hits) / 60)
    assert results['knn/top1_k30'] < results['knn/top5_k30'] < 100


def test_a_class_without_votes_is_no_guess():
    train = torch.eye(8)
    ranking = knn_ranking(train, torch.arange(8).flip(0), train[:1], 2)[2]
    assert ranking[0, 0] == 7 and (ranking[0] >= 0).sum() == 2 and ranking[0, 2:].tolist() == [-1] * 3


@pytest.mark.parametrize('k', [0, 301, (10, 301)])
def test_more_neighbours_than_images(data, k):
    (train, labels), (val, _) = data
    with pytest.raises(ValueError, match=r'300 training images: choose k in 1\.\.300'):
        knn_predict(train, labels, val, k)


def test_features_of_another_encoder(data):
    (train, labels), (val, _) = data
    with pytest.raises(ValueError, match='12 channels, the others 6'):
        knn_predict(train, labels, val[:, :6])
