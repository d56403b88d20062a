"""Rewrite the measured parts of README.md from the last finished run of this example."""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import json
import shutil
import sys
from pathlib import Path

import mlflow

from distill_tasks.config import load_config
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.results.outcomes import TEACHER

ROOT = Path(__file__).parents[2]
COLUMNS = (
    *("model", "accuracy", "interval", "macro F1", "seeds", "verdict", "against control"),
    *("retention", "p50 ms", "p95 ms", "speed-up p50", "speed-up p95", "MB"),
)


def main() -> None:
    """Copy the picture, and fill the headline and the table between their markers."""
    config = load_config(Path(__file__).parent / "distill.yaml")
    mlflow.set_tracking_uri(config.tracking.uri)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    runs = (
        []
        if experiment is None
        else client.search_runs(
            [experiment.experiment_id],
            "tags.`potstill.role` = 'summary' and attributes.status = 'FINISHED'",
        )
    )
    if not runs:
        sys.exit("No finished run was found. `make demo` first.")
    run = runs[0]
    picture = client.download_artifacts(run.info.run_id, "front.png")
    shutil.copyfile(picture, ROOT / "docs" / "front.png")
    saved = json.loads(
        Path(client.download_artifacts(run.info.run_id, "candidates.json")).read_text()
    )
    table = [dict(zip(saved["columns"], row, strict=True)) for row in saved["data"]]
    chosen = next(row for row in table if row["model"] == run.data.tags["student"])
    shown = [{key: str(row[key]) for key in COLUMNS} for row in table]
    kept = 100 * float(chosen["retention"])
    teacher = next(row for row in table if row["model"] == TEACHER)
    macro_f1 = 100 * float(chosen["macro F1"]) / float(teacher["macro F1"])
    faster, faster_p95 = (
        float(chosen[f"speed-up {p}"].removesuffix("×").replace(",", "")) for p in ("p50", "p95")
    )
    verdict = f"{chosen['verdict']} ({chosen['against control']} points)"
    parts = {
        "headline": (
            "**Potstill distils the large model you prototyped with into the small one that goes "
            f"to production, every night, and proves that it may: on Reuters R8 its champion keeps "
            f"{kept:.1f} % of the teacher's held-out accuracy ({macro_f1:.1f} % of its macro F1), "
            f"answers {faster:.0f}× faster at p50 and {faster_p95:.0f}× at p95, and its "
            f"verdict against itself without the teacher is {verdict}.**"
        ),
        "table": markdown_table(shown),
    }
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, part in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(start)
        text = f"{before}{start}{part}\n{end}{rest.partition(end)[2]}"
    readme.write_text(text, encoding="utf-8")
    print(f"README.md and docs/front.png now show run {run.info.run_id}")


if __name__ == "__main__":
    main()
