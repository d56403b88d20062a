import socket

import evaluate
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, softmax
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss
from torchmetrics.functional import classification
from torchmetrics.functional.regression import jensen_shannon_divergence, kl_divergence

from distill_tasks.scoring.metrics import F1, Accuracy, Calibration, Fidelity
from distill_tasks.scoring.statistics import CALIBRATION_BINS

CLASSES = 4
PROBLEMS = ("single_label", "multi_label")


@st.composite
def answers(draw):
    """Return a problem, references, student logits and teacher logits of a few rows."""
    problem = draw(st.sampled_from(PROBLEMS))
    rows = draw(st.integers(1, 20))
    shape, most = (rows, CLASSES - 1) if problem == "single_label" else ((rows, CLASSES), 1)
    gold = draw(arrays(np.int64, shape, elements=st.integers(0, most)))
    logits = arrays(np.float32, (rows, CLASSES), elements=st.floats(-8, 8, width=16))
    return problem, gold, draw(logits), draw(logits)


def read_off(problem, logits):
    return logits.argmax(axis=1) if problem == "single_label" else (logits >= 0) * 1


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("metrics"))
    return {
        (kind, problem): kind(config_name=problem, cache_dir=cache)
        for kind in (Accuracy, F1, Calibration, Fidelity)
        for problem in PROBLEMS
    }


@given(rows=answers())
@settings(deadline=None, max_examples=25)
def test_accuracy_and_f1_are_those_of_scikit_learn_and_torchmetrics(modules, rows):
    problem, gold, student, _ = rows
    said = read_off(problem, student)
    accuracy = modules[Accuracy, problem].compute(predictions=student, references=gold)
    assert accuracy == {"accuracy": pytest.approx(accuracy_score(gold, said))}
    f1 = modules[F1, problem].compute(predictions=student, references=gold)
    present = np.unique(gold) if problem == "single_label" else np.flatnonzero(gold.any(axis=0))
    assert f1["classes"] == len(present)
    for kind in ("macro", "weighted", "micro"):
        labels = range(CLASSES) if kind == "micro" else present
        theirs = (
            f1_score(gold, said, labels=labels, average=kind, zero_division=0) if len(labels) else 0
        )
        assert f1[f"{kind}_f1"] == pytest.approx(theirs, abs=1e-6)
    preds, target = torch.from_numpy(said), torch.from_numpy(gold)
    if problem == "single_label":
        by_class = classification.multiclass_f1_score(preds, target, CLASSES, average="none")
        hits = classification.multiclass_accuracy(preds, target, CLASSES, average="micro")
    else:
        by_class = classification.multilabel_f1_score(preds, target, CLASSES, average="none")
        hits = classification.multilabel_exact_match(preds, target, CLASSES)
    assert accuracy["accuracy"] == pytest.approx(hits.item())
    if len(present):
        assert f1["macro_f1"] == pytest.approx(by_class[present].mean().item(), abs=1e-6)


@given(rows=answers())
@settings(deadline=None, max_examples=25)
def test_likelihood_and_divergences_are_those_of_scikit_learn_and_torchmetrics(modules, rows):
    problem, gold, student, teacher = rows
    calibration = modules[Calibration, problem].compute(predictions=student, references=gold)
    fidelity = modules[Fidelity, problem].compute(predictions=student, references=teacher)
    if problem == "single_label":
        p, q = (softmax(x.astype(np.float64), axis=1) for x in (teacher, student))
        likelihood = log_loss(gold, q, labels=range(CLASSES))
        brier = brier_score_loss(gold, q, labels=range(CLASSES), scale_by_half=False)
        pairs = [(p, q)]
    else:
        p, q = (expit(x.astype(np.float64)) for x in (teacher, student))
        columns = [(gold[:, n], q[:, n]) for n in range(CLASSES)]
        likelihood = sum(log_loss(*column, labels=[0, 1]) for column in columns)
        brier = sum(brier_score_loss(*column, labels=[0, 1]) for column in columns)
        pairs = [
            (np.stack([p[:, n], 1 - p[:, n]], 1), np.stack([q[:, n], 1 - q[:, n]], 1))
            for n in range(CLASSES)
        ]
    tensors = [(torch.from_numpy(of), torch.from_numpy(by)) for of, by in pairs]
    kl = sum(kl_divergence(of, by).item() for of, by in tensors)
    js = sum(jensen_shannon_divergence(of, by).item() for of, by in tensors)
    assert calibration["nll"] == pytest.approx(likelihood, rel=1e-5)
    assert calibration["brier"] == pytest.approx(brier, rel=1e-5)
    assert fidelity["kl"] == pytest.approx(kl, rel=1e-5, abs=1e-6)
    assert fidelity["js"] == pytest.approx(js, rel=1e-5, abs=1e-6)
    agreed = accuracy_score(read_off(problem, teacher), read_off(problem, student))
    assert fidelity["agreement"] == pytest.approx(agreed)


@given(rows=answers())
@settings(deadline=None, max_examples=25)
def test_the_calibration_error_is_the_gap_between_sure_and_right_in_each_bin(modules, rows):
    problem, gold, student, _ = rows
    found = modules[Calibration, problem].compute(predictions=student, references=gold)["ece"]
    wide, said = student.astype(np.float64), read_off(problem, student)
    if problem == "single_label":
        sure, right = softmax(wide, axis=1).max(axis=1), said == gold
    else:
        sure, right = expit(np.abs(wide)).prod(axis=1), (said == gold).all(axis=1)
    # A bin holds at most two of so few rows.
    bins = np.array_split(np.argsort(sure, kind="stable"), CALIBRATION_BINS)
    gaps = [abs((right[few] - sure[few]).sum()) for few in bins]
    assert found == pytest.approx(sum(gaps) / len(gold), abs=1e-5)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_perfect_student_is_perfect_in_every_module(modules, problem):
    gold = np.eye(CLASSES, dtype=np.int64)
    logits = 200 * gold - 100.0
    references = gold.argmax(axis=1) if problem == "single_label" else gold
    found = {}
    for kind in (Accuracy, F1, Calibration):
        found |= modules[kind, problem].compute(predictions=logits, references=references)
    found |= modules[Fidelity, problem].compute(predictions=logits, references=logits)
    names = ("accuracy", "macro_f1", "weighted_f1", "micro_f1", "agreement", "top_overlap")
    assert {name: found[name] for name in names} == dict.fromkeys(names, 1)
    assert [found[name] for name in ("nll", "brier", "ece", "kl", "js")] == pytest.approx([0] * 5)


def test_modules_are_combined_and_fed_in_batches_without_a_network(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    logits, gold = [[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]], [0, 1, 1]
    kinds, cache = (Accuracy, F1, Calibration), str(tmp_path)
    combined = evaluate.combine([kind(cache_dir=cache) for kind in kinds])
    whole = combined.compute(predictions=logits, references=gold)
    assert whole["accuracy"] == pytest.approx(2 / 3)
    assert {"macro_f1", "weighted_f1", "micro_f1", "classes", "ece", "nll", "brier"} < set(whole)
    batched = evaluate.combine([kind(cache_dir=cache) for kind in kinds])
    batched.add_batch(predictions=logits[:2], references=gold[:2])
    batched.add_batch(predictions=logits[2:], references=gold[2:])
    assert batched.compute() == pytest.approx(whole)


def test_modules_say_what_they_are(modules):
    module = modules[Fidelity, "single_label"]
    assert "Hinton" in module.citation
    assert "KL" in module.description
    assert set(module.features) == {"predictions", "references"}
