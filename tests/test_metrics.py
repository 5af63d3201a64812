"""Metrics against OGB's evaluator and scikit-learn."""

import warnings

import numpy as np
import pytest
import torch

from graphdyn.errors import InputError
from graphdyn.metrics import accuracy, f1_micro, metric, roc_auc


def scores(n=200, c=5, seed=0, ties=False):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(n, c))
    return torch.from_numpy(np.round(values, 1) if ties else values).float()


def labels(n=200, c=5, seed=1, unknown=False):
    generator = np.random.default_rng(seed)
    y = (generator.random((n, c)) < 0.3).astype("float32")
    if unknown:
        y[generator.random((n, c)) < 0.2] = np.nan
    return torch.from_numpy(y)


@pytest.fixture(scope="module")
def evaluator():
    with warnings.catch_warnings():  # what ogb's imports warn of is not ours to judge
        warnings.simplefilter("ignore")
        from ogb.nodeproppred import Evaluator
    return Evaluator


def test_accuracy_equals_ogb(evaluator):
    logits, y = scores(c=40), torch.from_numpy(np.random.default_rng(2).integers(0, 40, 200))
    theirs = evaluator("ogbn-arxiv").eval(
        {"y_true": y[:, None], "y_pred": logits.argmax(1, keepdim=True)}
    )
    assert accuracy(logits, y) == pytest.approx(theirs["acc"], abs=1e-15)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("unknown", [False, True])
def test_roc_auc_equals_ogb(evaluator, ties, unknown):
    logits, y = scores(c=112, ties=ties), labels(c=112, unknown=unknown)
    theirs = evaluator("ogbn-proteins").eval({"y_true": y, "y_pred": logits})
    assert roc_auc(logits, y) == pytest.approx(theirs["rocauc"], abs=1e-12)


def test_roc_auc_of_two_classes_ranks_by_the_difference_of_logits():
    from sklearn.metrics import roc_auc_score

    logits = scores(c=2)
    y = torch.from_numpy(np.random.default_rng(3).integers(0, 2, 200))
    probability = logits.double().softmax(1)[:, 1]
    assert roc_auc(logits, y) == pytest.approx(roc_auc_score(y, probability), abs=1e-12)


def test_f1_micro_equals_scikit_learn():
    from sklearn.metrics import f1_score

    logits, y = scores(), labels()
    assert f1_micro(logits, y) == pytest.approx(f1_score(y, logits > 0, average="micro"))
    classes = torch.from_numpy(np.random.default_rng(4).integers(0, 5, 200))
    expected = f1_score(classes, logits.argmax(1), average="micro")
    assert f1_micro(logits, classes) == pytest.approx(expected)


def test_multilabel_accuracy_skips_what_is_unknown():
    logits = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    y = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    assert accuracy(logits, y) == pytest.approx((0.5 + 1.0) / 2)


def test_roc_auc_without_both_kinds_is_refused():
    with pytest.raises(InputError, match="no class has both"):
        roc_auc(scores(c=1), torch.ones(200, 1))
    with pytest.raises(InputError, match="needs 2 classes"):
        roc_auc(scores(c=3), torch.zeros(200, dtype=torch.long))


def test_unknown_metric_names_the_nearest():
    with pytest.raises(InputError, match="did you mean roc-auc"):
        metric("rocauc")
