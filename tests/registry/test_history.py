from concurrent.futures import ThreadPoolExecutor

import mlflow
import numpy as np
import pytest

from distill_tasks.core.notes import Rank
from distill_tasks.data.corpus import Split
from registry.history import Event, History, find_former, find_hand_move


@pytest.fixture
def history(mlflow_server, model) -> History:
    return History(mlflow.MlflowClient(mlflow_server), model)


def make_rows(seed):
    return Split([f"text {seed} {n}" for n in range(10)], np.arange(10) % 2)


def event(kind, version, at="2026-01-01T00:00:00.000000Z", **told):
    return Event(kind, version, by="Ada", flow_run=None, commit=None, at=at, **told)


def test_events_are_read_back_in_the_order_of_time_each_once(history):
    later = event("promoted", 2, at="2026-01-02T00:00:00.000000Z", before=1, id="b")
    first = event("registered", 1, why="x" * 5_000, id="a")
    for one in (later, first, later):
        history.append(one)
    read = history.read()
    assert [found.id for found in read] == ["a", "b"]
    assert read[1] == later
    assert read[0].why == "x" * 2_000


def test_an_event_says_who_and_when(history):
    history.append(Event("registered", 1))
    (found,) = history.read()
    assert found.by
    assert found.at.endswith("Z")
    assert found.flow_run is None


def test_a_comparison_is_one_look_however_often_it_is_asked_for(history):
    rows, others = make_rows(1), make_rows(2)
    assert history.coming_look(rows).number == 1
    numbers = [history.take_look(rows, name).number for name in ("a", "b", "a", "b", "c")]
    assert numbers == [1, 2, 1, 2, 3]
    assert history.take_look(others, "a").number == 1
    assert history.take_look(others, "a").rows == 10
    assert history.count_all_looks() == {rows.digest: 3, others.digest: 1}
    assert history.coming_look(rows).number == 4


def test_what_was_spent_is_noted_and_how_to_renew_it(history):
    rows = make_rows(1)
    assert history.note_looks(rows) == []
    history.take_look(rows, "a")
    (note,) = history.note_looks(rows)
    assert note.rank is Rank.FINE
    assert note.text.startswith(
        "the gate made 1 comparison on these held-out rows so far: 0.048 of"
    )
    history.client.set_tag(history.run_id, f"look.{rows.digest}.b", "30")
    (note,) = history.note_looks(rows)
    assert note.rank is Rank.KNOW
    assert "8 fresh held-out rows instead would prove the same" in note.text


def test_a_look_that_was_cut_short_counts(history):
    rows = make_rows(1)
    history.client.set_tag(history.run_id, f"look.{rows.digest}.killed", "reserved")
    assert history.take_look(rows, "next").number == 2
    assert history.take_look(rows, "killed").number == 2


def test_two_that_look_at_once_never_share_a_number(history, mlflow_server, model):
    rows = make_rows(1)

    def look(name):
        return History(mlflow.MlflowClient(mlflow_server), model).take_look(rows, name).number

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(look, "abcdef"))
    assert sorted(numbers) >= list(range(1, 7))
    assert history.coming_look(rows).number > max(numbers)


def test_a_history_in_the_bin_is_still_read(history):
    history.append(event("registered", 1, id="a"))
    history.client.delete_run(history.run_id)
    history.append(event("promoted", 1, id="b"))
    assert {found.id for found in history.read()} == {"a", "b"}


CHANGES = [event("gate passed", 2), event("promoted", 2, before=1), event("registered", 3)]


@pytest.mark.parametrize(
    ("champion", "said"),
    [(2, None), (None, None), (3, "never passed the gate"), (1, "never passed the gate")],
)
def test_an_alias_moved_by_hand_is_told_from_a_promotion(champion, said):
    moved = find_hand_move(CHANGES, champion)
    assert (moved.why.endswith(said) if moved else None) == (True if said else None)
    if moved:
        assert (moved.version, moved.before, moved.kind) == (champion, 2, "moved by hand")
        assert find_hand_move([*CHANGES, moved], champion) is None


def test_without_a_history_nothing_was_moved_by_hand():
    assert find_hand_move([event("registered", 1)], 1) is None


def test_former_champions_are_all_that_were_and_are_not():
    assert find_former(CHANGES, {"champion": 2}) == {1}
    assert find_former(CHANGES, {"champion": 3, "previous": 7}) == {1, 2, 7}
