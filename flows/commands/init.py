"""`potstill init`: looks at a file and writes the distill.yaml to begin with."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from distill_tasks.core.errors import InputError, shortlist
from flows.printing import out

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from distill_tasks.data.survey import Survey

HUB_ENCODER = "google-bert/bert-base-uncased"
HUB_COMMIT = "86b5e0934494bd15c9632b12f734a8a67f723594"
"""The encoder of a configuration whose user named none: English, 110 million parameters."""
TOKENS_PER_WORD = 1.5
"""Tokens that a word of English takes, generously."""
LENGTHS = (64, 128, 256, 512)
"""Tokens to read of each text, of which the smallest is taken that holds a long one."""
PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")
WORDS_OF_YAML = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
"""What YAML reads as something else than text."""


@dataclass(frozen=True)
class FirstTeacher:
    """The teacher to begin with: an encoder to fine-tune, or a classifier that is ready."""

    model: str
    revision: str | None
    ready: bool
    """Whether it answers without training, as it must where nothing is labelled."""
    named: bool
    """Whether the user named it."""

    def write(self, max_length: int) -> str:
        """Return the section `teacher` of the configuration."""
        kind, key = ("transformers", "model") if self.ready else ("finetune", "base")
        about = (
            "a classifier that answers as it is"
            if self.ready
            else "fine-tunes an encoder on the labels of train"
        )
        lines = [
            "teacher:",
            f"  kind: {kind}  # {about}",
            *([] if self.named else MUST_NAME),
            f"  {key}: {quote(self.model)}",
            *([f"  revision: {quote(self.revision)}"] if self.revision else []),
            f"  max_length: {max_length}  # tokens read of each text; the rest is cut off",
        ]
        return "\n".join(lines)


MUST_NAME = [
    "  # NAME YOUR TEACHER. This one is English, and comes from the hub at its first use. Give the",
    "  # folder of any encoder (written by save_pretrained), or a hub id and its commit.",
    "  # You have a classifier already: kind transformers, model. You have its answers in a file:",
    "  # kind saved, path (and label_column, if they are labels without probabilities).",
]


def init(
    data: Annotated[Path, Parameter(help="Texts and labels: csv, jsonl or parquet.")],
    *,
    held_out: Annotated[
        Path | None, Parameter(help="Rows to score on; a fifth of DATA when absent.")
    ] = None,
    transfer: Annotated[
        tuple[str, ...],
        Parameter(help="Rows without labels, for the teacher to label: files, or a pattern."),
    ] = (),
    teacher: Annotated[
        str | None,
        Parameter(help="Folder or hub id of an encoder; of a classifier if nothing is labelled."),
    ] = None,
    revision: Annotated[str | None, Parameter(help="Commit of a hub id.")] = None,
    text_column: Annotated[
        tuple[str, ...], Parameter(help="Column of the texts; may be given several times.")
    ] = (),
    label_column: Annotated[str | None, Parameter(help="Column of the labels.")] = None,
    output: Annotated[
        Path, Parameter(name=["--output", "-o"], help="The configuration to write.")
    ] = Path("distill.yaml"),
    overwrite: Annotated[bool, Parameter(help="Replace what is there.", negative="")] = False,
) -> None:
    """Look at a file of texts and labels, and write a distill.yaml to begin with.

    Rows are divided into files beside it: to learn from, to score on, and those without labels.

    Example: potstill init tickets.csv
    """
    from distill_tasks.data.division import divide, write_table
    from distill_tasks.data.survey import survey_table
    from distill_tasks.data.tables import read_table

    frame = read_table(str(data), "train")
    survey = survey_table(frame, str(data), text_column, label_column)
    first = _choose_teacher(survey, str(data), teacher, revision)
    parts = divide(frame, survey, hold_out=held_out is None)
    whole = held_out is not None and len(parts["train"]) == len(frame)
    named = {name: _name_part(output, data, name) for name in ([] if whole else parts)}
    _refuse_existing([output, *named.values()], overwrite)
    for name, path in named.items():
        write_table(parts[name], path)
    tables = {name: [str(path)] for name, path in ({"train": data} | named).items()}
    tables |= {"held_out": [str(held_out)]} if held_out else {}
    tables |= {"transfer": [*tables.get("transfer", []), *transfer]} if transfer else {}
    output.write_text(write_config(survey, data, tables, first), encoding="utf-8")
    for line in [*describe(survey, str(data)), *_say_parts(parts, named)]:
        out.say(line)
    out.say(f"Wrote {output}. Next: {_say_next(first, output)}")


def write_config(
    survey: Survey, data: Path, tables: dict[str, list[str]], teacher: FirstTeacher
) -> str:
    """Return a commented configuration for the rows of some files."""
    name = re.sub(r"[^\w.-]+", "-", data.stem).strip("-") or "first"
    tokens = TOKENS_PER_WORD * survey.long_text
    max_length = next((length for length in LENGTHS if length >= tokens), LENGTHS[-1])
    parts = [
        "\n".join(f"# {line}" for line in [*describe(survey, str(data)), *ABOUT]),
        f"name: {quote(name)}",
        *(["problem: multi_label  # a text has any number of labels"] if _several(survey) else []),
        _write_data(survey, tables),
        teacher.write(max_length),
        STUDENTS.format(layers=_choose_layers(teacher)),
        SELECT,
        f"registry:\n  model: {quote(name)}  # its name in the MLflow Model Registry",
    ]
    return "\n\n".join(parts) + "\n"


ABOUT = [
    "",
    "All keys with their defaults: potstill schema > distill.schema.json, which editors complete",
    "from. Paths are relative to where the command starts.",
]

STUDENTS = """students:  # each is trained and measured; a list spans the grid
  - family: layers  # a transformer made of the teacher's own layers
    layers: {layers}
  - family: static  # embeddings and a small network: no attention, no torch to serve
  - family: bag_of_words  # words and pairs of words: the fastest"""

SELECT = """select:
  choose: knee  # the best trade; or most_accurate, fastest, or budget with max_p95_latency_ms
  # min_retention: 0.98  # promise this share of the teacher's accuracy, or promote nothing"""


def describe(survey: Survey, path: str) -> list[str]:
    """Return what was found in a file, a line each."""
    classes = [f"{quote(name)} ({rows:,})" for name, rows in survey.classes.items()]
    several = ""
    if _several(survey):
        by = f" with {quote(survey.label_separator)} between" if survey.label_separator else ""
        several = f", several in a cell{by}"
    lines = [
        f"{quote(path)}: {survey.rows:,} rows, text in {_list(survey.text_columns)}",
        f"{len(classes)} classes in {quote(survey.label_column)}{several}: {shortlist(classes)}"
        if survey.label_column
        else "no column looks like labels",
    ]
    odd = {
        "rows with an empty text, left out": survey.empty_texts,
        "rows without a label": survey.unlabelled if survey.label_column else 0,
        "rows that repeat the text of an earlier one": survey.repeats,
    }
    lines += [f"{what}: {rows:,}" for what, rows in odd.items() if rows]
    if survey.other_labels:
        lines.append(f"might be labels as well: {_list(survey.other_labels)}")
    if survey.id_columns:
        lines.append(f"an id, so not read: {_list(survey.id_columns)}")
    return lines


def quote(text: str | None) -> str:
    """Return text as YAML reads it back, on one line."""
    assert text is not None
    if PLAIN.fullmatch(text) and text.lower() not in WORDS_OF_YAML:
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(quote, names))


def _several(survey: Survey) -> bool:
    return survey.problem == "multi_label"


def _write_data(survey: Survey, tables: dict[str, list[str]]) -> str:
    texts, label = survey.text_columns, survey.label_column
    text = quote(texts[0]) if len(texts) == 1 else f"[{_list(texts)}]  # joined, a line each"
    about = {
        "train": "learnt from",
        "held_out": "scored on, never trained on: keep it as it is",
        "transfer": "without labels: the teacher labels them for the students",
    }
    lines = ["data:", f"  text_column: {text}"]
    lines.append(f"  label_column: {quote(label) if label else 'null  # nothing is labelled'}")
    if survey.label_separator is not None:
        lines.append(f"  label_separator: {json.dumps(survey.label_separator)}")
    for name, paths in tables.items():
        written = quote(paths[0]) if len(paths) == 1 else f"[{_list(paths)}]"
        lines.append(f"  {name}: {written}  # {about[name]}")
    if "transfer" not in tables:
        lines.append("  # transfer: more.csv  # texts without labels: thousands help most")
    return "\n".join(lines)


def _choose_teacher(
    survey: Survey, path: str, model: str | None, revision: str | None
) -> FirstTeacher:
    """Return the teacher to begin with; without labels the user must name one that is ready."""
    unlabelled = survey.label_column is None
    if unlabelled and model is None:
        raise InputError(
            f"{path} has no column that looks like labels. Name it (--label-column NAME), or name "
            "a classifier that labels the rows (--teacher FOLDER)."
        )
    if model is None:
        return FirstTeacher(HUB_ENCODER, HUB_COMMIT, ready=False, named=False)
    if revision is None and not Path(model).is_dir():
        raise InputError(
            f"{model} is no folder here. Give one, or the commit of a hub id: --revision COMMIT."
        )
    return FirstTeacher(model, revision, ready=unlabelled, named=True)


def _choose_layers(teacher: FirstTeacher) -> str:
    """Return the depths of the transformers to begin with, fewer than the teacher's."""
    about = Path(teacher.model) / "config.json"
    deep = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
    return "1" if deep.get("num_hidden_layers", 12) < 3 else "[1, 2]"


def _name_part(output: Path, data: Path, part: str) -> Path:
    suffix = data.suffix or ".parquet"
    return output.parent / f"{data.stem}-{part.replace('_', '-')}{suffix}"


def _refuse_existing(paths: list[Path], overwrite: bool) -> None:
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise InputError(
            f"{shortlist(there)} is there already. Give another --output, or --overwrite it."
        )
    if not paths[0].parent.is_dir():
        raise InputError(f"There is no folder {paths[0].parent} to write {paths[0].name} into.")


def _say_parts(parts: dict[str, pd.DataFrame], named: dict[str, Path]) -> list[str]:
    return [f"{name}: {len(parts[name]):,} rows in {path}" for name, path in named.items()]


def _say_next(teacher: FirstTeacher, output: Path) -> str:
    name = "" if teacher.named else f"name your teacher in it ({HUB_ENCODER} stands there), then "
    return f"{name}`potstill check {output}`."
