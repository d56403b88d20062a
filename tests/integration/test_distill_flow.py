import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from night import run_night
from prefect.client.orchestration import get_client
from prefect.flow_runs import resume_flow_run
from prefect_states import last_flow_run, state_of, task_states
from samples import (
    FAMILIES,
    LAYERS,
    TEACHER_VARIANTS,
    VARIANTS,
    make_quick,
    make_rows,
    save_answers,
    write_settings,
    write_splits,
    write_words,
)

from distill_tasks.config import DistillConfig, parse_config
from distill_tasks.core.errors import InputError, NothingQualifiesError
from distill_tasks.core.store import Store
from distill_tasks.reporting.notes import gather_notes
from distill_tasks.reporting.rows import list_models
from distill_tasks.scoring.verdicts import Verdict
from distill_tasks.tracking.store import open_store
from flows.distill import Outcome, distill
from flows.label import label_only
from flows.promote import promote
from registry.aliases import aliases_of
from registry.history import History

pytestmark = pytest.mark.usefixtures("prefect_server")


def everything_of(config):
    client = open_store(config.tracking)
    experiment = client.get_experiment_by_name(config.tracking.experiment).experiment_id
    return {
        "runs": sorted(run.info.run_name for run in client.search_runs([experiment])),
        "models": len(client.search_logged_models([experiment])),
        "versions": len(client.search_model_versions(f"name = '{config.registry.model}'")),
        "shards": len(list(Path(config.work_dir).glob("labels/*/*.parquet"))),
        "aliases": aliases_of(client, config.registry.model),
    }


@pytest.fixture
def written(request, written, mlflow_server):
    """The small configuration, tracked by a real server, which keeps all in sqlite itself."""
    name = request.node.originalname[:60]
    tracking = {"uri": mlflow_server, "experiment": name}
    return written | {"tracking": tracking, "registry": {"model": name, "first": "any"}}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("server", marks=pytest.mark.slow)])
def first(request, tiny_base, tmp_path_factory):
    """A first run: the one that all tests share, and in the slow suite one on a real server too."""
    if request.param == "sqlite":
        return request.getfixturevalue("night")
    tracking = {"uri": request.getfixturevalue("mlflow_server"), "experiment": "night"}
    folder, registry = tmp_path_factory.mktemp("night"), {"model": "night", "first": "any"}
    return run_night(folder, tiny_base, tracking=tracking, registry=registry)


def test_a_second_run_makes_nothing_again_and_shows_it(first):
    config = first.config
    assert first.outcome.promotion.moved
    made = everything_of(config)
    controls = ["words-on-gold", "majority-class"]
    teachers = ["teacher", *TEACHER_VARIANTS]
    assert made["runs"] == sorted(["animals", *teachers, *controls, *FAMILIES, *VARIANTS])
    assert made["models"] == 9  # the cheap control is logged beside the students and the teachers
    assert made["versions"] == 1
    assert made["aliases"] == {"champion": 1}
    open_store(config.tracking)
    check_variants(first.outcome)
    kept = [name for name, state in first.states if state != "Completed"]
    assert kept == [
        "fit the grid into the budget",  # there is none
        "stop weak students early",  # a grid this small is not halved, and nothing is searched for
        "search further students",
        "compare on further carvings",  # on one alone
        "evaluate on validation",  # the second time: finalists got nothing further
    ]
    assert [name for name, _ in first.states if not name.startswith("train")] == [
        "check and keep the rows",
        "fit the grid into the budget",
        "make the teacher",
        "ask the teacher about every row",
        "audit the teacher",
        "compare the teacher with words",
        "tune objective",
        "stop weak students early",
        "search further students",
        "export to other runtimes",
        "compare on further carvings",
        "evaluate on validation",
        "time every model",
        "pick at most 3 finalists",
        "export to other runtimes",
        "evaluate on validation",
        "order the finalists",
        "judge finalists on held-out",
        "choose what keeps its promises",
        "evaluate on held_out",
        "draw the learning curve",
        "write the report to MLflow",
        f"register the student as {config.registry.model}",
        "compare version 1 with the champion",
        "promote version 1 if it won",
        "show the gate's answer",
        "add the outcome to the report",
        "update the card of version 1",
    ]

    second = distill(config)
    assert everything_of(config) == made
    assert not second.promotion.moved
    states = task_states(last_flow_run())
    makes_nothing = [
        "compare the teacher with words",
        "tune objective",
        "pick at most 3 finalists",
        "order the finalists",
        "choose what keeps its promises",
        "show the gate's answer",
        "update the card of version 1",
    ]
    assert [name for name, state in states if state == "Completed"] == makes_nothing
    assert {state for _, state in states} == {"Completed", "Cached"}


def check_variants(outcome):
    """The variants compete as models of their own, and the chosen one is served without torch."""
    selection, report = outcome.selection, outcome.report
    assert selection.finalists[0] == LAYERS
    assert selection.chosen == VARIANTS[1]  # as accurate as torch, and small
    assert selection.leading[0] == selection.chosen
    rows = {row.name: row for row in list_models(outcome.findings)}
    assert {LAYERS, *VARIANTS} <= rows.keys()
    assert rows[VARIANTS[0]].quality == rows[LAYERS].quality
    assert rows[selection.chosen].price_per_1000 is not None

    client = mlflow.MlflowClient()
    text = mlflow.artifacts.load_text(f"runs:/{outcome.distillation.run_id}/report.md")
    assert f"Of {selection.chosen}, 1,000 answers cost" in text
    assert "\n## Variants\n" in text
    for name in (LAYERS, *VARIANTS):
        model = client.get_logged_model(report.runs.model_ids[name])
        assert (model.name, model.model_type) == (name, "student")
        assert model.tags["model"] == name
    version = client.get_model_version(outcome.registered.model, "1")
    assert version.tags["candidate"] == selection.chosen
    assert "Runs as onnx" in version.description
    path = mlflow.pyfunc.get_model_dependencies(outcome.registered.uri)
    wanted = {line.split("==")[0] for line in Path(path).read_text().splitlines()}
    assert wanted == {"mlflow", "numpy", "onnxruntime", "tokenizers"}


def test_held_out_without_labels_measures_agreement_and_gives_no_verdict(quick, data_folder):
    path = data_folder / "held_out.parquet"
    pd.read_parquet(path)[["text"]].to_parquet(path, index=False)
    outcome = distill(parse_config(quick, "test"))
    findings = outcome.findings
    row = next(row for row in list_models(findings) if row.name == findings.selection.chosen)
    assert row.verdict is Verdict.INCONCLUSIVE
    assert row.agreement == row.quality.value
    assert row.retention is None
    assert any("held_out has no column 'label'" in note.text for note in gather_notes(findings))
    assert outcome.promotion.moved  # there was no champion to be worse than


def test_a_constraint_that_none_meets_names_the_nearest_and_promotes_nothing(quick):
    config = parse_config(quick | {"select": {"max_disk_mb": 1e-6}}, "test")
    with pytest.raises(NothingQualifiesError, match="is nearest and misses max_disk_mb"):
        distill(config)
    client = mlflow.MlflowClient(config.tracking.uri)
    assert not client.search_registered_models(f"name = '{config.registry.model}'")
    experiment = client.get_experiment_by_name(config.tracking.experiment).experiment_id
    summary = client.search_runs([experiment], "tags.`potstill.role` = 'summary'")[0]
    assert summary.info.status == "FAILED"
    assert "nearest" in summary.data.tags["potstill.failure"]
    assert client.list_artifacts(summary.info.run_id)


def test_two_runs_cannot_work_in_one_folder(quick):
    config = parse_config(quick, "test")
    other = Store(config.work_dir).lock("label animals")
    with other, pytest.raises(InputError, match=r"Another run .*: label animals \(process"):
        distill(config, wait_minutes=0)


@pytest.fixture
def promoted(first, tmp_path):
    """A first run whose aliases a test may move: of the shared one, a copy of its MLflow."""
    config = first.config
    if not config.tracking.uri.startswith("sqlite"):
        return config
    source, copy = Path(config.work_dir).with_name("mlflow.db"), tmp_path / "mlflow.db"
    with closing(sqlite3.connect(source)) as kept, closing(sqlite3.connect(copy)) as mine:
        kept.backup(mine)  # whole, even where another test writes to it
    tracking = config.tracking.model_copy(update={"uri": f"sqlite:///{copy}"})
    return config.model_copy(update={"tracking": tracking})


def test_promote_reviews_the_challenger_and_dry_run_changes_nothing(promoted):
    idle = promote(promoted)
    assert (idle.idle, idle.champion) == (True, 1)
    assert "has no challenger yet" in last_flow_run().state.message
    client = mlflow.MlflowClient(promoted.tracking.uri)
    model = promoted.registry.model
    client.set_registered_model_alias(model, "challenger", "1")
    client.delete_registered_model_alias(model, "champion")
    assert promote(promoted, dry_run=True).champion == 1
    assert "champion" not in aliases_of(client, model)
    assert promote(promoted).moved
    assert aliases_of(client, model) == {"champion": 1}


def fill_in_form(**answers):
    """Wait for a paused flow run and fill in its form, as a person does in Prefect's UI."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        run = last_flow_run()
        if run.state.is_paused():
            resume_flow_run(run.id, run_input=answers)
            return
        time.sleep(0.5)


def test_a_version_waits_for_a_person_who_decides_by_tag_or_by_form(quick):
    registry = quick["registry"] | {"promote": "review"}
    written = quick | {"evaluate": {"controls": False}, "registry": registry}
    config = parse_config(written, "test")
    outcome = distill(config)
    client, model = mlflow.MlflowClient(config.tracking.uri), config.registry.model
    assert (outcome.promotion.waits, aliases_of(client, model)) == (True, {"challenger": 1})
    assert last_flow_run().state.name == "Waiting for review"
    client.set_model_version_tag(model, "1", "review", "aproved")
    assert promote(config).waits
    assert "is no decision" in client.get_model_version(model, "1").tags["review.note"]
    client.set_model_version_tag(model, "1", "review", "approved")
    assert promote(config).moved
    assert aliases_of(client, model) == {"champion": 1}
    client.delete_registered_model_alias(model, "champion")
    client.set_registered_model_alias(model, "challenger", "1")
    with ThreadPoolExecutor(1) as pool:
        form = pool.submit(fill_in_form, decision="approved", by="Ada", why="read")
        assert promote(config, ask=True).moved
        form.result()
    event = History(client, model).read()[-1]
    assert (event.kind, event.by, event.flow_run) == ("promoted", "Ada", str(last_flow_run().id))


def test_neither_labels_asked_alone_nor_trained_students_are_made_again(quick):
    quick |= {"evaluate": {"controls": False}}
    student, other = ({"family": "bag_of_words", "max_features": size} for size in (50, 10))
    config = parse_config(quick | {"students": [student]}, "test")
    assert label_only(config).asked == 300
    distill(config)
    assert state_of("ask the teacher") == "Cached"
    distill(parse_config(quick | {"students": [student, other]}, "test"))
    states = dict(task_states(last_flow_run()))
    assert states["train bag-of-words-50"] == "Cached"
    assert states["train bag-of-words-10"] == "Completed"
    assert state_of("ask the teacher") == "Cached"


@pytest.fixture(scope="module")
def harmed(tmp_path_factory, mlflow_server):
    """A finished run whose teacher is always wrong, with a production sample."""
    folder, rows = tmp_path_factory.mktemp("harmed"), make_rows(300, seed=1)
    splits = {"train": rows[:90], "held_out": rows[90:200], "production": rows[200:][["text"]]}
    for name, split in splits.items():
        split.to_parquet(folder / f"{name}.parquet", index=False)
    save_answers([rows], folder / "answers.parquet", wrong=1)
    written = {
        "name": "harmed",
        "work_dir": str(folder / "work"),
        "data": {name: str(folder / f"{name}.parquet") for name in splits},
        "teacher": {"kind": "saved", "path": str(folder / "answers.parquet")},
        "students": [{"family": "bag_of_words", "max_features": 200}],
        "evaluate": {"weak_teacher": "go_on"},
        "measure": {"calls": 20, "batch_rows": [4]},
        "tracking": {"uri": mlflow_server, "experiment": "harmed"},
        "registry": {"model": "harmed", "first": "any"},
    }
    outcome = distill(parse_config(written, "test"))
    return outcome, mlflow.MlflowClient(written["tracking"]["uri"]), last_flow_run()


def test_the_flow_run_is_named_after_its_configuration_and_leaves_artifacts(harmed):
    _, _, run = harmed
    assert run.name == "harmed"
    with get_client(sync_client=True) as client:
        kept = client.request("POST", "/artifacts/filter", json={"sort": "CREATED_DESC"}).json()
    ours = {item["key"]: item for item in kept if item["flow_run_id"] == str(run.id)}
    links = {"mlflow-run", "mlflow-models", "mlflow-version"}
    assert set(ours) == {"run", "candidates", "front", "gate"} | links
    assert "teacher" in ours["candidates"]["data"]


def test_a_student_that_is_no_better_for_its_teacher_is_registered_and_not_promoted(harmed):
    outcome, client, run = harmed
    assert outcome.promotion.champion is None
    assert outcome.promotion.reason.startswith("NO BEATS")
    assert aliases_of(client, "harmed") == {"challenger": 1}
    assert (run.state.name, run.state.is_completed()) == ("Kept as challenger", True)
    assert run.state.message.startswith("version 1 kept as challenger: NO BEATS")
    assert client.get_model_version("harmed", "1").tags["potstill.verdict"] == "NO BEATS"


def test_a_production_sample_is_asked_and_reported(harmed):
    outcome, client, _ = harmed
    metrics = client.get_run(outcome.distillation.run_id).data.metrics
    assert 0 < metrics["agreement on production"] <= 1
    page = mlflow.artifacts.load_text(f"runs:/{outcome.distillation.run_id}/report.html")
    assert "On production rows" in page


@dataclass(frozen=True)
class Seeded:
    """A run of several seeds and one student that diverges."""

    config: DistillConfig
    outcome: Outcome
    everything: dict[str, Any]
    states: list[tuple[str, str]]

    @property
    def names(self):
        return [student.name for student in self.config.students]


@pytest.fixture(scope="module")
def seeded(tiny_base, mlflow_server, tmp_path_factory):
    """A finalist with seeds and controls, one that lost, and one whose loss is no number soon."""
    folder = tmp_path_factory.mktemp("seeded")
    written = make_quick(write_settings(folder, write_splits(folder), tiny_base), folder)
    static = {"family": "static", "epochs": 1}
    wild = static | {"dimensions": 4, "learning_rate": 1e30}
    changes = {
        "teacher": {"kind": "transformers", "model": str(tiny_base), "max_length": 16},
        "students": [static | {"dimensions": [4, 8]}, wild],
        # The teacher was never trained, so words on gold are surely better.
        "evaluate": {"seeds": 2, "finalists": 1, "weak_teacher": "go_on"},
    }
    changes |= {"tracking": {"uri": mlflow_server, "experiment": "seeded"}}
    changes |= {"registry": {"model": "seeded", "first": "any"}}
    config = parse_config(written | changes, "test")
    outcome = distill(config)
    return Seeded(config, outcome, everything_of(config), task_states(last_flow_run()))


def test_a_finalist_is_trained_from_more_seeds_and_without_its_teacher(seeded):
    outcome, (*students, wild) = seeded.outcome, seeded.names
    (finalist,) = outcome.selection.finalists
    further = [f"{finalist}-{which}" for which in ("seed-8", "on-gold-seed-7", "on-gold-seed-8")]
    plain = ["animals", "teacher", "words-on-gold", "majority-class"]
    assert seeded.everything["runs"] == sorted([*plain, *students, *further])
    trained = [name for name, _ in seeded.states if name.startswith("train")]
    assert trained == [f"train {name}" for name in (*students, wild, "words-on-gold", *further)]

    client = mlflow.MlflowClient(seeded.config.tracking.uri)
    runs = {name: client.get_run(run_id) for name, run_id in outcome.report.runs.run_ids.items()}
    seeds = [runs[name].data.metrics["accuracy"] for name in (finalist, further[0])]
    alone = [runs[name].data.metrics["accuracy"] for name in further[1:]]
    row = next(row for row in list_models(outcome.findings) if row.name == finalist)
    assert row.quality.value == pytest.approx(sum(seeds) / 2)
    assert row.seeds == pytest.approx((min(seeds), max(seeds)))
    gap = runs[finalist].data.metrics["gain over control"]
    assert gap == pytest.approx(sum(seeds) / 2 - sum(alone) / 2)
    assert runs[finalist].data.tags["verdict"] == str(row.verdict)
    assert "temperature" not in runs[further[1]].data.params  # no teacher, no loss of its own
    (loser,) = set(students) - {finalist}
    assert "accuracy" not in runs[loser].data.metrics  # held-out sees finalists alone
    assert "validation accuracy" in runs[loser].data.metrics


def test_a_student_that_diverges_is_left_out_and_the_night_goes_on(seeded):
    *_, wild = seeded.names
    findings = seeded.outcome.findings
    assert seeded.outcome.registered.version == 1
    (row,) = [row for row in list_models(findings) if row.name == wild]
    assert row.outcome.startswith(f"left out: its training failed: {wild}: the loss became")
    assert row.validation_quality is None
    assert any(
        note.text.startswith(f"{wild} was left out: its training")
        for note in gather_notes(findings)
    )
    assert wild not in seeded.everything["runs"]
    assert (f"train {wild}", "Failed") in seeded.states


@pytest.mark.slow
def test_words_on_gold_become_champion_where_they_are_asked_for_until_a_student_beats_them(
    tmp_path,
):
    written = write_words(tmp_path)
    train = pd.concat([pd.read_parquet(written["data"][n]) for n in ("train", "validation")])
    train[:60].to_parquet(tmp_path / "train.parquet", index=False)
    del written["data"]["validation"]
    written["evaluate"] |= {"validation_folds": 3, "weak_teacher": "go_on"}
    written["registry"] = {"model": "words", "candidate": "words-on-gold"}
    written["budget"] = {"minutes": 600}
    words = distill(parse_config(written, "test"))
    assert (words.promotion.moved, words.promotion.champion) == (True, 1)
    assert "3 carvings of validation" in " ".join(n.text for n in gather_notes(words.findings))
    champion = mlflow.pyfunc.load_model("models:/words@champion")
    held_out = pd.read_parquet(tmp_path / "held_out.parquet")
    right = champion.predict(held_out["text"])["label"] == held_out["label"]
    measured = words.findings.held_out.models["words-on-gold"].values["quality/accuracy"]
    assert right.mean() == pytest.approx(measured)

    written["registry"] = {"model": "words"}
    student = distill(parse_config(written, "test"))
    assert all(one.reused for one in student.findings.students)
    assert (student.promotion.champion, student.promotion.previous) == (2, 1)
