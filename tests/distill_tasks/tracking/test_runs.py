import os

import mlflow
import pytest
from samples import FAMILIES, TEACHER_VARIANTS, VARIANTS

from distill_tasks.results.references import TEACHER
from distill_tasks.stages.report import write_report
from distill_tasks.tracking.runs import find_or_start, finish, tracked

CONTROLS = ("words-on-gold", "majority-class")


SERVED = (*FAMILIES, *VARIANTS)


def runs_of(house):
    return runs_with(house, house.distillation.digest)


def test_summary_teacher_controls_and_each_student_have_one_finished_run(house):
    runs = runs_of(house)
    assert sorted(run.info.run_name for run in runs) == sorted(
        ["animals", TEACHER, *TEACHER_VARIANTS, *CONTROLS, *SERVED]
    )
    assert {run.info.status for run in runs} == {"FINISHED"}
    roles = sorted(run.data.tags["potstill.role"] for run in runs)
    trained = len([*SERVED, *TEACHER_VARIANTS, "words-on-gold"])
    assert roles == sorted(["summary", TEACHER, "majority-class", *["student"] * trained])


def test_a_summary_that_a_kill_left_unwritten_is_written_without_new_runs(house):
    client, run_id = house.client, house.distillation.run_id
    before = {run.info.run_id for run in runs_of(house)}
    client.delete_tag(run_id, "potstill.logged")
    with tracked(house.config, house.corpus) as again:
        assert not again.finished
        assert not write_report(house.findings, again).reused
    assert {run.info.run_id for run in runs_of(house)} == before
    assert client.get_run(run_id).data.tags["potstill.logged"] == "true"


def test_a_distillation_that_raises_is_failed_and_says_why_until_it_ends_well(house):
    config = house.config.model_copy(update={"name": "unlucky"})
    with (
        pytest.raises(ValueError, match="the still leaks"),
        tracked(config, house.corpus) as first,
    ):
        raise ValueError("the still leaks")
    run = house.client.get_run(first.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["potstill.failure"] == "ValueError: the still leaks"
    with tracked(config, house.corpus) as second:
        assert house.client.get_run(first.run_id).info.status == "RUNNING"
    run = house.client.get_run(second.run_id)
    assert second.run_id == first.run_id
    assert run.info.status == "FINISHED"
    assert "potstill.failure" not in run.data.tags


def test_another_model_behind_the_same_settings_is_another_distillation(house):
    config = name_config(house, "moved")
    ids = {}
    for identity in ("", "oracle-1 1", "oracle-2 1", "oracle-1 1"):
        with tracked(config, house.corpus, identity) as found:
            ids.setdefault(identity, found.run_id)
            assert ids[identity] == found.run_id
    assert len(set(ids.values())) == 3


def name_config(house, name, **changes):
    return house.config.model_copy(update={"name": name, **changes})


def tags(house, run_id):
    return house.client.get_run(run_id).data.tags


def test_a_run_whose_process_is_gone_is_killed_by_the_next_one_of_its_store(house, tmp_path):
    """As kill -9 leaves them: nothing after the first lines of `tracked` ever happens."""
    config, elsewhere = (
        name_config(house, "lost"),
        name_config(house, "at work", work_dir=str(tmp_path)),
    )
    opened = [tracked(each, house.corpus) for each in (config, elsewhere)]
    left, other = (each.__enter__() for each in opened)
    inner = start_student(left)

    def status(run_id):
        return house.client.get_run(run_id).info.status

    assert {status(run_id) for run_id in (left.run_id, inner, other.run_id)} == {"RUNNING"}
    with tracked(name_config(house, "next"), house.corpus) as following:
        assert status(following.run_id) == "RUNNING"
        assert {status(left.run_id), status(inner)} == {"KILLED"}
        assert "kill -9" in tags(house, left.run_id)["potstill.failure"]
        assert f"process {os.getpid()} on " in tags(house, left.run_id)["potstill.failure"]
        assert status(other.run_id) == "RUNNING"  # in a store that nobody here has locked
        assert "potstill.continues" not in tags(house, following.run_id)  # another name
    with tracked(config, house.corpus) as again:
        assert (again.run_id, status(left.run_id)) == (left.run_id, "RUNNING")
    assert status(left.run_id) == "FINISHED"
    told = tags(house, left.run_id)
    assert "potstill.failure" not in told
    assert told["potstill.interruptions"] == "1"
    assert "kill -9" in told["potstill.last_interruption"]
    opened[1].__exit__(None, None, None)


def start_student(distillation):
    where = distillation.experiment_id, distillation.digest, "student/a", "a"
    return find_or_start(*where, store=distillation.store)[0]


def test_an_interrupted_run_and_the_one_on_other_rows_name_each_other(house):
    lost, later = (name_config(house, "nightly", seed=seed) for seed in (1, 2))
    opened = tracked(lost, house.corpus)
    left = opened.__enter__()
    for _ in range(2):  # the second time it is only repeated
        with tracked(later, house.corpus) as following:
            pass
    assert tags(house, left.run_id)["potstill.continued_by"] == following.run_id
    assert tags(house, following.run_id)["potstill.continues"] == left.run_id
    assert house.client.get_run(left.run_id).info.status == "KILLED"
    assert "potstill.continued_by" not in tags(house, following.run_id)


def test_a_run_that_a_retried_request_made_twice_is_there_once(house):
    config = name_config(house, "twice")
    with tracked(config, house.corpus) as first:
        older = start_student(first)
        known = house.client.get_run(older)
        newer = house.client.create_run(first.experiment_id, tags=known.data.tags).info.run_id
    left = {run.info.run_id: run.info.status for run in runs_with(house, first.digest)}
    assert left == {first.run_id: "FINISHED", newer: "KILLED"}


def runs_with(house, distillation):
    query = f"tags.distillation = '{distillation}'"
    return house.client.search_runs([house.distillation.experiment_id], query)


def test_a_distillation_that_raises_after_its_report_ends_well_once_it_is_repeated(house):
    config = house.config.model_copy(update={"name": "unlucky-late"})
    with pytest.raises(ValueError, match="leaks"), tracked(config, house.corpus) as first:  # noqa: PT012
        finish(first.run_id)
        raise ValueError("the still leaks")
    assert house.client.get_run(first.run_id).info.status == "FAILED"
    with tracked(config, house.corpus) as second:
        assert (second.run_id, second.finished) == (first.run_id, True)
    assert house.client.get_run(first.run_id).info.status == "FINISHED"


def test_a_failure_that_a_server_no_longer_hears_is_still_the_failure_that_is_told(
    house, monkeypatch, caplog
):
    def is_gone(*_, **__):
        raise mlflow.MlflowException("connection refused")

    config = house.config.model_copy(update={"name": "unheard"})
    with pytest.raises(ValueError, match="the still leaks"), tracked(config, house.corpus):  # noqa: PT012
        monkeypatch.setattr(mlflow.MlflowClient, "set_tag", is_gone)
        raise ValueError("the still leaks")
    assert "MLflow does not know that the run failed: connection refused" in caplog.text
