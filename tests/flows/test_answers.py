import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from distill_tasks.core.notes import Note, Rank
from distill_tasks.measuring.latency import SpeedUp
from distill_tasks.reporting.rows import ModelRow
from flows import answers, status_answers, trigger_answers, version_answers
from flows.answers import (
    CODES,
    DETAILED_CODES,
    PROMOTE_CODES,
    Answer,
    Ending,
    answer_run,
    name_ending,
)
from flows.version_answers import answer_promotion
from registry.promote import Promotion

DOCS = Path("docs/command_line.md").read_text()


def promotion(**changes):
    kept = Promotion("animals", 1, None, moved=False, reason="it lost", reused=False)
    return replace(kept, **changes)


@pytest.mark.parametrize(
    ("changes", "dry_run", "ending", "codes"),
    [
        ({"moved": True}, False, Ending.PROMOTED, (0, 0, 0)),
        ({}, False, Ending.KEPT, (0, 3, 1)),
        ({"reused": True}, False, Ending.CHAMPION_ALREADY, (0, 0, 0)),
        ({"would_move": True}, True, Ending.WOULD_PROMOTE, (0, 0, 0)),
        ({}, True, Ending.WOULD_KEEP, (0, 3, 0)),
        ({"waits": True}, False, Ending.WAITING, (0, 5, 1)),
    ],
)
def test_how_a_promotion_ended_has_a_name_and_an_exit_code(changes, dry_run, ending, codes):
    found = name_ending(promotion(**changes), dry_run)
    assert found is ending
    tables = CODES, DETAILED_CODES, PROMOTE_CODES
    assert tuple(table.get(found, 0) for table in tables) == codes


def test_a_run_answers_with_its_champion_and_the_figures_of_every_model(night):
    answer = answer_run(night.outcome, detailed=False)
    assert (answer.outcome, answer.exit_code, answer.champion) == (Ending.PROMOTED, 0, 1)
    chosen = next(model for model in answer.models if model.name == answer.chosen)
    assert chosen.quality_low <= chosen.quality <= chosen.quality_high
    assert chosen.speed_up_p95 > 0
    assert [note.rank for note in answer.notes] == sorted(
        (note.rank for note in answer.notes), key=list(Rank).index
    )
    assert json.loads(answer.model_dump_json())["message"].startswith("Champion of animals is now")


def test_a_model_is_compared_with_the_teacher_as_it_runs_and_with_its_best_variant():
    nothing = dict.fromkeys(field.name for field in fields(ModelRow))
    speed = {"speed_up": SpeedUp(40.0, 20.0), "speed_up_over_variant": SpeedUp(10.0, 5.0)}
    row = ModelRow(**nothing | {"name": "small", "outcome": "chosen"} | speed)
    model = answers._answer_model(row)
    assert (model.speed_up_p50, model.speed_up_p95) == (40, 20)
    assert (model.speed_up_p50_over_variant, model.speed_up_p95_over_variant) == (10, 5)
    alone = answers._answer_model(replace(row, speed_up_over_variant=None))
    assert (alone.speed_up_p50_over_variant, alone.speed_up_p95_over_variant) == (None, None)


def test_a_run_in_which_nothing_qualified_is_told_apart_on_request(night):
    outcome = replace(night.outcome, registered=None, promotion=None)
    usual, detailed = (answer_run(outcome, detailed) for detailed in (False, True))
    assert (usual.outcome, usual.exit_code) == (Ending.NOTHING_QUALIFIED, 1)
    assert detailed.exit_code == 4


def test_an_answer_about_a_promotion_says_who_is_champion():
    answer = answer_promotion("promote", promotion(), Ending.KEPT, 1)
    assert answer.message == "Champion of animals stays version 1 (it lost)."


def list_answers():
    return [
        kind
        for module in (answers, version_answers, trigger_answers, status_answers)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, answers.BaseModel)
        if kind.__module__.startswith("flows.")
    ]


def test_every_key_is_described_and_documented():
    for kind in list_answers():
        for name, field in kind.model_fields.items():
            assert field.description
            assert f"| `{name}` |" in DOCS, f"{kind.__name__}.{name}"


def test_every_outcome_and_exit_code_is_documented():
    for ending in Ending:
        codes = sorted({table.get(ending, 0) for table in (CODES, DETAILED_CODES, PROMOTE_CODES)})
        row = next(line for line in DOCS.splitlines() if line.startswith(f"| `{ending}` |"))
        assert sorted({int(code) for code in re.findall(r"\b\d+\b", row.split("|", 2)[2])}) == codes


def test_notes_stand_in_the_order_of_their_rank():
    notes = [Note(Rank.FINE, "a"), Note(Rank.ACT, "b")]
    assert [note.text for note in answers._list_notes(notes)] == ["b", "a"]


def test_an_error_has_the_keys_that_every_answer_has():
    for kind in list_answers():
        if issubclass(kind, Answer):
            assert list(kind.model_fields)[:4] == list(Answer.model_fields)
