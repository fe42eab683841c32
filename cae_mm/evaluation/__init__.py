"""What an encoder has learned: k-NN and linear probe on frozen features."""
from cae_mm.evaluation.features import extract_features, labelled_loader
from cae_mm.evaluation.hook import KNNHook
from cae_mm.evaluation.knn import knn_accuracy, knn_predict
from cae_mm.evaluation.linear_probe import linear_probe

__all__ = ['KNNHook', 'extract_features', 'knn_accuracy', 'knn_predict', 'labelled_loader',
           'linear_probe']
