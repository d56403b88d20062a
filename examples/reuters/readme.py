"""Rewrite the measured parts of README.md from the last finished run of this example."""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run

from distill_tasks.config import load_config
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.results.references import TEACHER
from distill_tasks.students.controls import WORDS_ON_GOLD

ROOT = Path(__file__).parents[2]
NOTHING = "–"
COLUMNS = {
    "accuracy": "accuracy",
    "macro F1": "macro F1",
    "p50 ms": "p50 ms",
    "p95 ms": "p95 ms",
    "speed-up p50": "faster",
    "MB": "MB",
}
"""The columns of the run's table that the README shows, and what it calls them."""

Row = dict[str, Any]
"""One model of a run's table."""


def main() -> None:
    """Copy the picture, and fill the headline and the table between their markers."""
    config = load_config(Path(__file__).parent / "distill.yaml")
    mlflow.set_tracking_uri(config.tracking.uri)
    client = mlflow.MlflowClient()
    run = find_run(client, config.tracking.experiment)
    picture = client.download_artifacts(run.info.run_id, "front.png")
    shutil.copyfile(picture, ROOT / "docs" / "front.png")
    file = client.download_artifacts(run.info.run_id, "candidates.json")
    saved = json.loads(Path(file).read_text(encoding="utf-8"))
    table = [dict(zip(saved["columns"], row, strict=True)) for row in saved["data"]]
    chosen = run.data.tags["student"]
    readme = ROOT / "README.md"
    text = fill(readme.read_text(encoding="utf-8"), "headline", write_headline(table, chosen))
    text = fill(text, "table", markdown_table(pick_rows(table, chosen)))
    readme.write_text(text, encoding="utf-8")
    print(f"README.md and docs/front.png now show run {run.info.run_id}")


def find_run(client: mlflow.MlflowClient, name: str) -> Run:
    """Return the last finished summary run of an experiment."""
    experiment = client.get_experiment_by_name(name)
    summaries = "tags.`potstill.role` = 'summary' and attributes.status = 'FINISHED'"
    runs = experiment and client.search_runs([experiment.experiment_id], summaries)
    if not runs:
        sys.exit("No finished run was found. `make demo` first.")
    return runs[0]


def write_headline(table: list[Row], chosen: str) -> str:
    """Return what the champion keeps of its teacher, and how much faster it is."""
    champion, teacher = find(table, chosen), find(table, TEACHER)
    kept = 100 * float(champion["retention"])
    macro_f1 = 100 * float(champion["macro F1"]) / float(teacher["macro F1"])
    faster, faster_p95 = (
        float(champion[f"speed-up {quantile}"].removesuffix("×").replace(",", ""))
        for quantile in ("p50", "p95")
    )
    return (
        "On Reuters R8, news in eight topics, the model that it chose keeps "
        f"**{kept:.1f} %** of its teacher's accuracy on rows that\n"
        f"no training saw ({macro_f1:.1f} % of its macro F1), and answers **{faster:.0f} times "
        f"faster** at the median, {faster_p95:.0f} times at p95, on one CPU thread."
    )


def pick_rows(table: list[Row], chosen: str) -> list[dict[str, str]]:
    """Return the five rows that matter: teacher, champion, another finalist, two without a teacher.

    A run with one finalist has no other.
    """
    others = [row["model"] for row in table if row["verdict"] != NOTHING]
    others.remove(chosen)
    rows = {
        TEACHER: "the teacher",
        chosen: f"{chosen}, the champion",
        **{name: f"{name}, another finalist" for name in others[:1]},
        f"{chosen}-on-gold": f"{chosen} without the teacher",
        WORDS_ON_GOLD: "words alone, without a teacher",
    }
    return [show(find(table, name), title) for name, title in rows.items()]


def show(row: Row, title: str) -> dict[str, str]:
    """Return a row as the README shows it."""
    cells = {name: str(row[column]) for column, name in COLUMNS.items()}
    judged = row["verdict"] != NOTHING
    help_of_teacher = f"{row['verdict']}: {row['against control']} points" if judged else NOTHING
    return {"model": title, **cells, "with the teacher, rather than without": help_of_teacher}


def find(table: list[Row], name: str) -> Row:
    """Return the row of a model."""
    return next(row for row in table if row["model"] == name)


def fill(text: str, name: str, part: str) -> str:
    """Return a text with another part between two markers."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, _, rest = text.partition(start)
    return f"{before}{start}{part}\n{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    main()
