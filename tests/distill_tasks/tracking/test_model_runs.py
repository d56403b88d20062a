import io
import json

import mlflow
import pandas as pd
import pytest
from samples import FAMILIES, LAYERS, LAYERS_ONNX, TEACHER_VARIANTS, VARIANTS

from distill_tasks.reporting.pages import write_markdown
from distill_tasks.reporting.relabelling import COLUMNS, REVIEW
from distill_tasks.reporting.tables import tabulate_models
from distill_tasks.results.references import TEACHER
from distill_tasks.stages.report import write_report
from distill_tasks.students.controls import WORDS_ON_GOLD
from distill_tasks.tracking.runs import tracked

CONTROLS = ("words-on-gold", "majority-class")


SERVED = (*FAMILIES, *VARIANTS)


def runs_of(house):
    query = f"tags.distillation = '{house.distillation.digest}'"
    return house.client.search_runs([house.distillation.experiment_id], query)


def models_of(house):
    query = f"tags.distillation = '{house.distillation.digest}'"
    experiment = house.distillation.experiment_id
    return house.client.search_logged_models([experiment], filter_string=query)


def test_every_run_shows_a_few_metrics_of_the_same_names_and_keeps_every_figure(house):
    runs = {run.info.run_name: run for run in runs_of(house)}
    for name in (TEACHER, *CONTROLS, *SERVED):
        card, metrics = house.findings.held_out.models[name], runs[name].data.metrics
        assert metrics["accuracy"] == pytest.approx(card.values["quality/accuracy"])
        assert metrics["macro F1"] == pytest.approx(card.values["quality/macro_f1"])
        curves = [key for key in metrics if key.startswith("training ")]
        assert len(metrics) - len(curves) <= 11
        assert not [key for key in metrics if "/" in key]
        figures = json.loads(load(runs[name].info.run_id, "figures.json"))
        kept = {key: figure["low"] for key, figure in figures["held_out"].items()}
        assert kept == {key: figure.low for key, figure in card.figures.items()}
    for name in (TEACHER, *SERVED):
        latency, metrics = house.findings.latencies.by_name[name], runs[name].data.metrics
        assert metrics["p95 ms"] == pytest.approx(latency.p95_ms)
        measured = json.loads(load(runs[name].info.run_id, "figures.json"))["measured"]
        assert measured["latency/aa_p95"] == pytest.approx(latency.aa_p95)
        assert ("serving/resident_mb" in measured) == (name != TEACHER)


def test_every_other_run_stands_below_the_summary(house):
    parents = {run.info.run_name: run.data.tags.get("mlflow.parentRunId") for run in runs_of(house)}
    assert parents.pop("animals") is None
    assert set(parents.values()) == {house.distillation.run_id}


def test_teacher_and_candidates_were_measured_in_one_run(house):
    found = house.findings.latencies
    served = {*SERVED, *TEACHER_VARIANTS, WORDS_ON_GOLD}
    assert found.by_name.keys() == {TEACHER, *served}
    assert found.footprints.keys() == served
    times = {name: latency.p50_ms for name, latency in found.by_name.items()}
    assert times[LAYERS_ONNX] < times[LAYERS] < times[TEACHER]
    light = [takes for name, takes in found.footprints.items() if name != LAYERS]
    torch = found.footprints[LAYERS]
    assert torch.resident_mb > 2 * max(takes.resident_mb for takes in light)
    assert torch.installed_mb > 2 * max(takes.installed_mb for takes in light)


def test_the_summary_run_holds_all_that_a_reviewer_reads(house):
    run_id = house.distillation.run_id
    paths = {file.path for file in house.client.list_artifacts(run_id)} - {"versions"}
    pages = {"report.html", "report.md", "front.png", "distill.yaml"}
    found = {"candidates.json", "data_report.json", "learning_curve.json", "blend.json"}
    found |= {"audit.json"}
    assert paths == pages | found | {"environment.json", "front_small.png", "review"}
    review = pd.read_csv(io.StringIO(load(run_id, REVIEW).removeprefix("\ufeff")))
    assert len(review) == len(house.findings.label_errors)
    assert list(review.columns) == list(COLUMNS)
    environment = json.loads(load(run_id, "environment.json"))
    assert environment["packages"]["mlflow"] == mlflow.__version__
    assert load(run_id, "report.md") == write_markdown(house.findings)
    assert "<html" in load(run_id, "report.html")
    run = house.client.get_run(run_id)
    assert run.data.tags["student"] == house.findings.selection.chosen
    assert run.data.tags["verdict"] == "INCONCLUSIVE"
    quality = house.findings.held_out.candidates[house.findings.selection.chosen].quality
    assert run.data.metrics["accuracy"] == pytest.approx(quality.value)
    assert house.report.runs.compare in run.data.tags["mlflow.note.content"]


def load(run_id, path):
    return mlflow.artifacts.load_text(f"runs:/{run_id}/{path}")


def test_what_was_found_is_there_to_be_read_by_a_program(house):
    run_id, findings = house.distillation.run_id, house.findings
    table = json.loads(load(run_id, "candidates.json"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert rows == tabulate_models(house.findings)
    report = json.loads(load(run_id, "data_report.json"))
    assert {split["name"]: split["rows"] for split in report["splits"]} == {
        name: len(split) for name, split in house.corpus.splits.items()
    }
    curve = json.loads(load(run_id, "learning_curve.json"))
    assert [point["transfer_rows"] for point in curve["points"]] == [14, 28, 55, 110]
    assert json.loads(load(run_id, "blend.json"))["reason"] == findings.tuning.reason


def test_a_variants_run_tells_of_which_student_it_is_and_how_it_runs(house):
    variants = {"torch": LAYERS, "onnx": LAYERS_ONNX, "numpy": FAMILIES[1]}
    for variant, name in variants.items():
        params = house.client.get_run(house.report.runs.run_ids[name]).data.params
        assert (params["variant"], params["candidate"]) == (variant, name)
    runs = [house.client.get_run(house.report.runs.run_ids[n]) for n in (LAYERS, LAYERS_ONNX)]
    torch, onnx = (run.data.params for run in runs)
    assert onnx["layers"] == torch["layers"] == "2"
    figures = [run.data.metrics["accuracy"] for run in runs]
    assert figures[0] == figures[1]


def test_a_finalists_run_holds_its_panel_its_verdict_and_its_classes(house):
    leading = house.findings.selection.leading
    assert len(leading) == len(FAMILIES)
    for name in leading:
        run_id = house.report.runs.run_ids[name]
        panel = json.loads(load(run_id, "panel.json"))
        assert panel["confusion"] == house.findings.proof.panels[name].confusion
        verdict = json.loads(load(run_id, "verdict.json"))
        assert verdict["verdict"] == "INCONCLUSIVE"
        assert "evaluate.controls is off" in verdict["reason"]
        classes = json.loads(load(run_id, "per_class.json"))
        assert classes == house.findings.held_out.models[name].per_class
        run = house.client.get_run(run_id)
        assert run.data.tags["verdict"] == "INCONCLUSIVE"
        assert (run.data.params["seed"], run.data.params["taught"]) == ("10", "True")
    behind = set(SERVED) - set(leading)  # the same student, judged in another variant
    for name in (TEACHER, *CONTROLS, *behind):
        files = house.client.list_artifacts(house.report.runs.run_ids[name])
        assert not {file.path for file in files} & {"panel.json", "verdict.json"}


def test_writing_a_finished_report_again_adds_nothing(house):
    before = [run.to_dictionary() for run in runs_of(house)], len(models_of(house))
    written = count_writes(house)
    with tracked(house.config, house.corpus) as again:
        report = write_report(house.findings, again)
    assert report.reused
    assert report.runs.run_ids == house.report.runs.run_ids
    assert report.runs.model_ids == house.report.runs.model_ids
    after = runs_of(house)
    assert {run.info.run_id for run in after} == {r["info"]["run_id"] for r in before[0]}
    assert {run.info.status for run in after} == {"FINISHED"}
    assert len(models_of(house)) == before[1]
    assert count_writes(house) == written
    assert min(written.values()) == 1


def count_writes(house):
    """Return how often the accuracy of each model was written."""
    ids = house.report.runs.run_ids
    accuracy = "accuracy"
    return {name: len(house.client.get_metric_history(run, accuracy)) for name, run in ids.items()}
