"""A teacher that every word moves, and what its students train on."""

import shutil

import pytest
import torch
import transformers
from samples import make_gold_set

from distill_tasks.training.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def teacher(tiny_base, tmp_path_factory):
    """The tiny transformer with weights so large that every word moves its answers."""
    folder = tmp_path_factory.mktemp("lively")
    shutil.copytree(tiny_base, folder, dirs_exist_ok=True)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(8)
    model.save_pretrained(folder)
    return Checkpoint(folder, None, 16)


@pytest.fixture(scope="module")
def training_set(teacher):
    return make_gold_set(teacher.model, 160)
