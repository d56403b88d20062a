"""The findings of one small distillation, as they are and changed in many ways."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from samples import make_footprint, make_latency
from small_distillation import GOOD, P95_MS, POOR, distil, parse, write_evil_rows

from distill_tasks.config import SelectConfig
from distill_tasks.data.rows import read_corpus
from distill_tasks.results.selection import Candidate, Field
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.parity import Parity
from distill_tasks.stages.select import select_candidate


def run(written, **changes):
    config = parse(written | changes)
    return distil(config, read_corpus(config.data, config.seed), P95_MS)


@pytest.fixture(scope="session")
def evil_rows(tmp_path_factory):
    """Rows whose texts and one class try to break out of a page, with production and slices."""
    return write_evil_rows(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="session")
def findings(evil_rows):
    return run(evil_rows)


@pytest.fixture(scope="session")
def without_gold(evil_rows, tmp_path_factory):
    """The same with held_out that has no label column."""
    path = tmp_path_factory.mktemp("bare") / "held_out.parquet"
    rows = pd.read_parquet(evil_rows["data"]["held_out"]).drop(columns="label")
    rows.to_parquet(path, index=False)
    return run(evil_rows, data=evil_rows["data"] | {"held_out": str(path)})


@pytest.fixture(scope="session")
def nothing(findings):
    """The same where no candidate meets the constraints."""
    field = Field(findings.selection.candidates, np.zeros((2, 2)), 0.0, ())
    selection = select_candidate(field, [], SelectConfig(max_disk_mb=1e-6))
    empty = replace(findings.held_out, candidates={}, on_gold={})
    proof = replace(findings.proof, judgements={}, panels={}, parities={}, production={})
    return replace(findings, selection=selection, held_out=empty, proof=proof)


@pytest.fixture(scope="session")
def exported(findings):
    """The same where the chosen student also runs as ONNX, five times as fast, and as int8."""
    changes = {
        "onnx": (0.08, Parity("onnx", 2e-7, 0, 90, Figure(0.0, 0.0, 0.0, 90)), ""),
        "onnx_int8": (
            0.1,
            Parity("onnx_int8", 0.5, 9, 90, Figure(-0.1, -0.2, -0.02, 90)),
            "rejected: loses more than the 0.5 points allowed, -10.00 points against torch",
        ),
    }
    good, poor = findings.selection.candidates
    by_name, candidates = dict(findings.latencies.by_name), [good]
    for variant, (p95_ms, parity, rejected) in changes.items():
        name = f"{GOOD}-{variant.replace('_', '-')}"
        student = replace(good.student, name=name, candidate=name, variant=variant)
        by_name[name] = make_latency(p95_ms)
        takes = make_latency(p95_ms), make_footprint(40), parity, rejected
        candidates.append(Candidate(student, good.validation, *takes))
    candidates.append(poor)
    names = [candidate.name for candidate in candidates[1:3]]
    served = [candidate.student for candidate in candidates[1:3]]
    quality = np.array([c.validation.quality.value for c in candidates])
    field = Field(candidates, quality[:, None] - quality, 0.0, ())
    config = SelectConfig(choose="most_accurate")

    def add(cards):
        return cards | dict.fromkeys(names, cards[GOOD])

    def score(scores):
        return replace(scores, models=add(scores.models), candidates=add(scores.candidates))

    proof, front = findings.proof, f"{GOOD}-onnx"
    held_out = {name: c.parity for name, c in zip(names, candidates[1:3], strict=True)}
    led = {"judgements": proof.judgements, "panels": proof.panels, "production": proof.production}
    led = {key: {front: kept[GOOD], POOR: kept[POOR]} for key, kept in led.items()}
    return replace(
        findings,
        grid=replace(findings.grid, students=[*findings.students, *served]),
        validation=score(findings.validation),
        held_out=score(findings.held_out),
        latencies=replace(findings.latencies, by_name=by_name),
        selection=select_candidate(field, findings.selection.finalists, config),
        proof=replace(proof, parities=held_out, **led),
    )
