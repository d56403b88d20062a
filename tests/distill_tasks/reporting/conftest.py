"""The findings of one small distillation, as they are and changed in many ways."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import make_footprint, make_latencies, make_latency
from samples import GOOD, POOR, write_evil_words

from distill_tasks.config import SelectConfig, parse_config
from distill_tasks.results.choice import Rule, select_candidate
from distill_tasks.results.references import TEACHER
from distill_tasks.results.selection import Candidate, Field
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.parity import Parity
from distill_tasks.stages.select import make_field, make_rule
from flows.distill import distill


@pytest.fixture(scope="session")
def find(request, once, empty_mlflow):
    """What a run finds on rows that try to break out of a page, on latencies that are given."""

    def find(name, change=None):
        def run(folder):
            request.getfixturevalue("prefect_server")
            shutil.copy(empty_mlflow, folder / "mlflow.db")
            written = write_evil_words(folder)
            if change:
                change(folder)
            both = written["select"] | {"objectives": ["parameters"]}  # whatever the stopwatch says
            found = distill(parse_config(written | {"select": both}, "test")).findings
            (folder / "findings.pickle").write_bytes(pickle.dumps(found))

        return time_anew(pickle.loads((once(name, run) / "findings.pickle").read_bytes()))

    return find


def time_anew(found):
    """Give findings latencies under which both students are on the front, and select again."""
    config = found.config.model_copy(update={"select": SelectConfig(choose="most_accurate")})
    run, latencies = replace(found.run, config=config), make_latencies({GOOD: 0.4, POOR: 0.2})
    field = make_field(run.open(), found.students, found.validation, latencies)
    selection = select_candidate(field, [GOOD, POOR], make_rule(config))
    return replace(found, run=run, latencies=latencies, selection=selection)


@pytest.fixture(scope="session")
def findings(find):
    """With production and slices."""
    return find("evil")


@pytest.fixture(scope="session")
def without_gold(find):
    """The same with held_out that has no label column."""

    def drop_labels(folder):
        path = folder / "held_out.parquet"
        pd.read_parquet(path).drop(columns="label").to_parquet(path, index=False)

    return find("evil-without-gold", drop_labels)


@pytest.fixture(scope="session")
def uneven(findings):
    """The same where held-out has few fish, of which the chosen student finds none."""
    splits, number = findings.rows.splits, findings.rows.classes.index("fish")
    fish = np.flatnonzero(splits["held_out"].gold == number)
    kept = np.setdiff1d(np.arange(len(splits["held_out"])), fish[7:])
    rows = replace(findings.rows, splits=splits | {"held_out": splits["held_out"].take(kept)})

    def score(card, **changes):
        others = [row for row in card.per_class if row["class"] != "fish"]
        return replace(card, per_class=[*others, {"class": "fish", "rows": 7, **changes}])

    models = findings.held_out.models
    good = score(models[GOOD], precision=None, recall=0.0, f1=0.0)
    teacher = score(models[TEACHER], precision=0.9, recall=0.9, f1=0.9)
    held_out = replace(findings.held_out, models=models | {GOOD: good, TEACHER: teacher})
    found = replace(findings, held_out=held_out)
    vars(found)["rows"] = rows  # where they are read once
    return found


@pytest.fixture(scope="session")
def nothing(findings):
    """The same where no candidate meets the constraints."""
    field = Field(findings.selection.candidates, np.zeros((2, 2)), 0.0, ())
    selection = select_candidate(field, [], Rule(SelectConfig(max_disk_mb=1e-6)))
    empty = replace(findings.held_out, candidates={}, on_gold={})
    proof = replace(findings.proof, judgements={}, panels={}, parities={}, production={})
    return replace(findings, selection=selection, held_out=empty, proof=proof)


@pytest.fixture(scope="session")
def with_variants(findings):
    """The same where the teacher is exported too: int8 is the fastest, but much worse."""
    good = findings.selection.choice.student
    latency_ms = {TEACHER: 4.0, "teacher-onnx": 2.0, "teacher-onnx-int8": 0.1}
    variants = [
        replace(
            good,
            **dict.fromkeys(("name", "candidate"), name),
            student=TEACHER,
            variant=variant,
            distilled=False,
        )
        for name, variant in zip([*latency_ms][1:], ("onnx", "onnx_int8"), strict=True)
    ]

    def score(scores):
        teacher = scores.models[TEACHER]
        poor = replace(teacher, figures=scores.candidates[POOR].figures)
        added = {"teacher-onnx": teacher, "teacher-onnx-int8": poor}
        return replace(scores, models=scores.models | added)

    timed = findings.latencies
    by_name = timed.by_name | {name: make_latency(ms) for name, ms in latency_ms.items()}
    footprints = timed.footprints | {one.name: make_footprint() for one in variants}
    return replace(
        findings,
        grid=replace(findings.grid, students=[*findings.students, *variants]),
        validation=score(findings.validation),
        held_out=score(findings.held_out),
        latencies=replace(timed, by_name=by_name, footprints=footprints),
    )


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
        selection=select_candidate(field, findings.selection.finalists, Rule(config)),
        proof=replace(proof, parities=held_out, **led),
    )
