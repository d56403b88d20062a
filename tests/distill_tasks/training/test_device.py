"""The device, and the settings on it."""

import os
import subprocess
import sys

import pytest
import torch

from distill_tasks.training import device


@pytest.mark.parametrize(
    ("bf16", "processes", "expected"), [(True, "1", True), (True, "2", False), (False, "1", False)]
)
def test_one_process_with_bf16_computes_in_a_copy(monkeypatch, bf16, processes, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device, "has_bf16_instructions", lambda: bf16)
    monkeypatch.setenv("WORLD_SIZE", processes)
    assert device.choose_device().working_copy is expected


def test_instructions_that_a_user_takes_from_the_kernels_are_not_counted_on():
    """Bfloat16 is emulated then, and a step takes eleven times as long."""
    ask = f"from {device.__name__} import has_bf16_instructions as has; print(has())"
    without = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    said = subprocess.run(
        [sys.executable, "-c", ask], env=without, capture_output=True, text=True, check=True
    )
    assert said.stdout == "False\n"
