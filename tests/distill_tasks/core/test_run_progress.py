import pytest
from builders import clock_of

from distill_tasks.core import run_progress
from distill_tasks.core.run_progress import SECONDS, RunProgress, Stage, following, told_stage
from distill_tasks.core.store import Store

STAGES = (Stage("read", "read", 10), Stage("train", "train", 80), Stage("read", "read again", 10))


@pytest.fixture
def clock():
    with clock_of(run_progress, now=100.0) as mine:
        yield mine


def go_through(clock, *seconds, reused=()):
    """Enter one stage after another, each for so many seconds."""
    for stage, taken in zip(STAGES, seconds, strict=False):
        with told_stage(stage.name) as had_nothing_to_do:
            clock.now += taken
            had_nothing_to_do.append(stage.about in reused)


def test_a_first_run_foretells_its_end_from_usual_times_and_its_own_pace(clock, tmp_path):
    run = RunProgress(STAGES, tmp_path)
    with following(run):
        with told_stage("read"):
            assert str(run) == "stage 1 of 3, 0:00:00 so far: read"
            clock.now += 30
        with told_stage("train"):
            assert str(run) == "stage 2 of 3, about 0:04:30 left: train"
            clock.now += 200
            assert run.seconds_left == 40 + 30
            clock.now += 200  # it takes longer than foretold
            assert run.seconds_left == 30


def test_a_later_run_knows_what_each_stage_took(clock, tmp_path):
    with following(RunProgress(STAGES, tmp_path)):
        go_through(clock, 1, 5, 2)
    run = RunProgress(STAGES, tmp_path)
    with following(run), told_stage("read"):
        assert str(run) == "stage 1 of 3, about 0:00:08 left: read"


def test_stages_that_had_nothing_to_do_teach_nothing(clock, tmp_path):
    with following(RunProgress(STAGES, tmp_path)):
        go_through(clock, 1, 5, 2)
    with following(RunProgress(STAGES, tmp_path)):
        go_through(clock, 0.1, 7, 0.1, reused=("read", "read again"))
    kept = Store(tmp_path).manifest(*SECONDS)
    assert kept == {"read": 1, "train": 7, "read again": 2}


def test_a_stage_of_several_tasks_is_one(clock, tmp_path):
    run = RunProgress(STAGES, tmp_path)
    with following(run):
        for _ in range(3):
            with told_stage("train"):
                clock.now += 1
        assert run.number == 1
        with told_stage("another flow's"):
            assert run.number == 1
        with told_stage("read"):
            assert run.number == 2


def test_times_that_cannot_be_read_are_told_and_as_good_as_none(clock, tmp_path, caplog):
    for content in ("[", "[1]"):
        with following(RunProgress(STAGES, tmp_path)):
            go_through(clock, 1, 5, 2)
        (tmp_path.joinpath(*SECONDS) / "manifest.json").write_text(content)
        caplog.clear()
        assert RunProgress(STAGES, tmp_path).known == {}
        assert "stage_seconds/last is not whole" in caplog.text


def test_without_a_run_a_stage_is_told_to_nobody():
    with told_stage("read") as reused:
        assert reused == []
