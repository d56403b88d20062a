"""Tests of environment.py."""

import json
import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from distill_tasks.core.environment import PACKAGES, SERVING, list_versions, read_environment


def test_versions_are_those_of_what_is_installed():
    assert list_versions()["numpy"] == np.__version__
    assert list_versions(["numpy", "no-such-package"]) == {"numpy": np.__version__}
    assert set(SERVING) <= set(PACKAGES)
    packages = read_environment().packages
    assert packages == {name: version(name) for name in packages}
    assert {"potstill", "torch", "mlflow", "prefect"} <= set(packages)


def test_the_processor_is_told_with_the_arithmetic_it_can_do():
    environment = read_environment()
    cores = len(os.sched_getaffinity(0))
    assert environment.processor.endswith(f", {cores} cores")
    told = set(environment.processor_flags)
    assert ("avx512_bf16" in told) == torch.cpu._is_avx512_bf16_supported()
    assert ("amx_tile" in told) == torch.cpu._is_amx_tile_supported()
    assert "fpu" not in told


def test_settings_of_threads_are_told_and_secrets_are_not(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "guess")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    told = read_environment()
    assert told.settings["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in told.settings
    assert "guess" not in json.dumps(asdict(told))


def test_a_system_without_proc_still_has_an_environment(monkeypatch):
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    assert read_environment().processor_flags == ()


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "THP_MEM_ALLOC_ENABLE"])
def test_what_this_library_sets_is_told(name):
    assert read_environment().settings[name] == os.environ[name]
