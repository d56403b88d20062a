"""Random first weights: the same ones whatever other threads draw meanwhile."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from distill_tasks.training.random_weights import seeded

SEEDS = range(8)


def draw(seed):
    with seeded(seed):
        return [torch.randn(1000).sum().item() for _ in range(50)]


def test_threads_draw_what_each_draws_alone():
    alone = [draw(seed) for seed in SEEDS]
    assert len({values[0] for values in alone}) == len(SEEDS)
    with ThreadPoolExecutor(len(SEEDS)) as threads:
        assert list(threads.map(draw, SEEDS)) == alone


def test_a_failed_training_keeps_no_other_from_drawing():
    with pytest.raises(MemoryError), seeded(1):
        raise MemoryError
    assert draw(1) == draw(1)
