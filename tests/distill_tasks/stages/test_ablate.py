from dataclasses import dataclass, replace

import pandas as pd
import pytest
from builders import open_run, train_finalists
from samples import GOOD, make_wordy_rows, save_answers, write_words

from distill_tasks.config import parse_config
from distill_tasks.data.synthetic import write_synthetic
from distill_tasks.results.grid import Grid, Trial, first_trials
from distill_tasks.results.trained import train_one
from distill_tasks.scoring.verdicts import Verdict
from distill_tasks.stages.ablate import ablate_synthetic

SPLITS = "train", "validation", "transfer", "held_out"


@dataclass
class Chosen:
    """As much of a selection as is asked of it."""

    candidates: list
    chosen: str | None = GOOD
    leading: tuple = ()


@dataclass
class Named:
    """A candidate by its student alone."""

    student: object


@pytest.fixture(scope="module")
def ablated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablate")
    written = write_words(folder)
    further = make_wordy_rows(600, seed=9)
    tables = [pd.read_parquet(folder / f"{name}.parquet") for name in SPLITS]
    save_answers(
        [*tables[:2], make_wordy_rows(240, seed=3), tables[3], further],
        folder / "answers.parquet",
        wrong=0.0,
    )
    intended = further["label"].where(further.index >= 30, "cats")
    write_synthetic(dict(zip(further["text"], intended, strict=True)), folder / "synthetic.csv")
    written["data"]["synthetic"] = str(folder / "synthetic.csv")
    run = open_run(parse_config(written, "test"))
    students = train_finalists(run)
    grid = Grid(students, trials=first_trials(run.config))
    selection = Chosen([Named(next(s for s in students if s.name == GOOD))])
    return run, grid, selection, ablate_synthetic(run, grid, selection)


def test_the_chosen_student_is_compared_with_itself_without_synthetic_rows(ablated):
    run, _, _, found = ablated
    assert (found.student, found.rows, found.as_intended) == (GOOD, 600, 580)
    assert found.comparison.difference.rows == len(run.corpus.splits["held_out"])
    assert found.comparison.difference.value == pytest.approx(
        found.whole.quality.value - found.ablated.quality.value
    )
    assert found.comparison.verdict is Verdict.BEATS


def test_it_is_the_student_of_a_run_that_never_had_them(ablated):
    run, grid, _, _ = ablated
    trial = Trial(grid.settings(GOOD), run.config.seed, synthetic=False)
    alone = train_one(run, trial)
    bare = replace(run, corpus=run.corpus.without("synthetic"))
    same = train_one(bare, replace(trial, synthetic=True))
    assert alone.reused
    assert alone.name == f"{GOOD}-without-synthetic"
    assert same.trained == alone.trained
    (whole, *_) = [one for one in grid.students if one.candidate == GOOD]
    assert whole.trained != alone.trained


def test_nothing_is_trained_twice_or_where_there_is_nothing_to_compare(ablated):
    run, grid, selection, found = ablated
    assert ablate_synthetic(run, grid, selection) == replace(found, reused=True)
    assert ablate_synthetic(run, grid, replace(selection, candidates=[])) is None
    bare = replace(run, corpus=run.corpus.without("synthetic"))
    assert ablate_synthetic(bare, grid, selection) is None
    first = replace(selection, chosen=None, leading=(GOOD,))
    assert ablate_synthetic(run, grid, first).student == GOOD
