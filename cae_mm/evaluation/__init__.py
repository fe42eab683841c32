"""What an encoder has learned: k-NN and linear probe on frozen features, over all ranks."""
from cae_mm.evaluation.features import extract_features, labelled_loader
from cae_mm.evaluation.knn import knn_accuracy
from cae_mm.evaluation.knn_hook import KNNHook
from cae_mm.evaluation.lbfgs_probe import lbfgs_probe

__all__ = ['KNNHook', 'extract_features', 'knn_accuracy', 'labelled_loader', 'lbfgs_probe']
