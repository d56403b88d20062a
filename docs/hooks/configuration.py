"""The page of the configuration: every key of the schema, with default, unit and example."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

EXAMPLES = Path(__file__).with_name("examples.yaml")
UNITS = {
    "machine_hour": "currency",
    "teacher_1000_calls": "currency",
    "validation_share": "share",
    "allowed_drop": "share",
    "answer_precision": "share",
    "min_retention": "share",
    "min_teacher_accuracy": "share",
    "self_agreement_rows": "rows",
    "rows": "texts",
    "min_accuracy": "share",
    "min_macro_f1": "share",
    "min_weighted_f1": "share",
    "min_micro_f1": "share",
    "min_class_recall": "share",
    "min_class_f1": "share",
    "max_p95_latency_ms": "ms",
    "max_disk_mb": "MB",
    "batch_rows": "rows",
    "scored_transfer": "rows",
    "accumulated_batches": "batches",
    "examples": "rows",
    "epochs": "epochs",
    "patience_epochs": "epochs",
    "max_length": "tokens",
    "max_features": "terms",
    "ngrams": "words",
    "characters": "characters",
    "hidden_units": "units",
    "feed_forward": "units",
    "dimensions": "numbers",
    "width": "numbers",
    "layers": "layers",
    "max_candidates": "students",
    "finalists": "students",
    "trials": "students",
    "calls": "calls",
    "workers": "processes",
    "num_cpus": "cores",
    "num_gpus": "GPUs",
    "threads": "threads",
    "seeds": "trainings",
    "minutes": "minutes",
    "samples": "votes",
    "answer_tokens": "tokens",
    "max_characters": "characters",
    "concurrency": "requests",
    "requests_per_minute": "requests",
    "tokens_per_minute": "tokens",
    "timeout_s": "s",
    "max_spend": "currency",
    "max_requests": "requests",
    "min_success_ratio": "share",
    "input": "currency",
    "output": "currency",
    "validation_folds": "carvings",
}
"""What keys that are quantities are counted or measured in."""
WITHOUT_UNIT = {
    "alpha",
    "batch",
    "high",
    "learning_rate",
    "low",
    "min_absolute_change",
    "min_relative_change",
    "seed",
    "suspicious_weight",
    "temperature",
    "terms",
    "threshold",
    "version",
    "weight",
}
"""Numbers that have no unit."""
SPACES = "search.optuna.spaces"
INTRODUCTION = """# Configuration

Every key of a `distill.yaml`, from the schema itself. A share is a number from 0 to 1. A key
without a default must be given. Paths are relative to where the command starts. An editor completes
and checks the file by its first line:

```yaml
# yaml-language-server: $schema=distill.schema.json
```

`potstill schema > distill.schema.json` writes the schema that it names.
"""
ABOUT_SPACES = """The fields of `students`, family by family. Each is a fixed value, a list of
choices, or a range:
"""


@dataclass(frozen=True)
class Key:
    """One key of the configuration."""

    path: str
    """Its name with those of the sections around it, as `teacher.finetune.base`."""
    schema: dict[str, Any]
    required: bool
    section: str
    """The model that it belongs to."""

    @property
    def name(self) -> str:
        """Its name alone."""
        return self.path.rpartition(".")[2]

    @property
    def default(self) -> Any:
        """Its default; None where it is optional or required."""
        return self.schema.get("default")

    @property
    def is_section(self) -> bool:
        """Whether it holds further keys, so that these are its examples."""
        return isinstance(self.default, dict) and self.name != "terms"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "configuration.md", content=write_page()))
    return files


def read_schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration."""
    from distill_tasks.config import write_schema

    schema: dict[str, Any] = json.loads(write_schema())
    return schema


def read_examples() -> dict[str, Any]:
    """Return the example of each key that has no default to show."""
    examples: dict[str, Any] = yaml.safe_load(EXAMPLES.read_text(encoding="utf-8"))
    return examples


def list_keys() -> list[Key]:
    """Return every key, in the order of the configuration."""
    schema = read_schema()
    return list(_walk(schema, schema, "", seen=set()))


def write_page() -> str:
    """Return the page in Markdown: a table of keys for each part of the configuration."""
    schema, examples, parts = read_schema(), read_examples(), [INTRODUCTION]
    sections = {"": schema} | schema["$defs"]
    tables: dict[str, list[Key]] = {}
    for key in list_keys():
        tables.setdefault(key.section, []).append(key)
    for section, keys in tables.items():
        parent = keys[0].path.rpartition(".")[0]
        about = ABOUT_SPACES if parent == SPACES else sections[section].get("description", "")
        level = "###" if "." in parent else "##"
        title = f"`{parent}`" if parent else "The whole"
        parts.append(f"{level} {title}\n\n{about}\n\n{_tabulate(keys, examples)}\n")
    return "\n".join(parts)


def find_unit(key: Key) -> str:
    """Return the unit of a key, or nothing."""
    return UNITS.get(key.name, "")


def show_example(key: Key, examples: dict[str, Any]) -> str:
    """Return a line of YAML that sets a key; nothing for one that holds further keys."""
    value = examples.get(key.path, key.default)
    if value is None or (key.is_section and key.path not in examples):
        return ""
    return f"{key.name}: {_inline(value)}"


def _walk(schema: dict[str, Any], part: dict[str, Any], path: str, seen: set[str]) -> Iterator[Key]:
    """Return the keys of a part of the schema, then those of the parts that it refers to."""
    required, section = part.get("required", []), part["title"] if path else ""
    inside: list[tuple[str, str]] = []
    for name, field in part.get("properties", {}).items():
        key = f"{path}.{name}".removeprefix(".")
        yield Key(key, field, name in required, section)
        inside += [(key, reference) for reference in _find_references(field)]
    for key, reference in inside:
        target = schema["$defs"][reference]
        if reference in seen or "properties" not in target or reference.endswith("Space"):
            if reference.endswith("Space") and "Range" not in seen:
                seen.add("Range")
                yield from _walk(schema, schema["$defs"]["Range"], key, seen)
            continue
        seen.add(reference)
        yield from _walk(schema, target, f"{key}{_name_kind(target)}", seen)


def _find_references(field: Any) -> Iterator[str]:
    """Return the models that a field of the schema refers to, in their order."""
    if isinstance(field, list):
        for one in field:
            yield from _find_references(one)
    elif isinstance(field, dict):
        if "$ref" in field:
            yield field["$ref"].rpartition("/")[2]
        for name, inner in field.items():
            if name not in ("default", "discriminator"):
                yield from _find_references(inner)


def _name_kind(part: dict[str, Any]) -> str:
    """Return which of several kinds a model is, as `.finetune`; nothing where there is one kind."""
    for name in ("kind", "family"):
        if "const" in part["properties"].get(name, {}):
            return f".{part['properties'][name]['const']}"
    return ".hub" if "hub" in part["properties"] else ""


def _tabulate(keys: list[Key], examples: dict[str, Any]) -> str:
    lines = ["| key | what it is | default | unit | example |", "| --- | --- | --- | --- | --- |"]
    for key in keys:
        default = "required" if key.required else _code(_inline(key.default))
        about = f"{key.schema.get('description', '')} {_say_allowed(key.schema)}".strip()
        if key.is_section:
            default = "see below"
        cells = (
            _code(key.name),
            about,
            default,
            find_unit(key),
            _code(show_example(key, examples)),
        )
        lines.append(f"| {' | '.join(_escape_bars(cell) for cell in cells)} |")
    return "\n".join(lines)


def _say_allowed(field: dict[str, Any]) -> str:
    """Return the values or the range that a field allows, as far as they are plain."""
    ways = [field, *field.get("anyOf", [])]
    words = [word for way in ways for word in [*way.get("enum", []), way.get("const")] if word]
    said = [f"one of {', '.join(_code(str(word)) for word in words)}"] if len(words) > 1 else []
    signs = {
        "exclusiveMinimum": "above {}",
        "minimum": "at least {}",
        "exclusiveMaximum": "below {}",
        "maximum": "at most {}",
    }
    for way in ways:
        bounds = [said.format(f"{way[name]:,}") for name, said in signs.items() if name in way]
        said += [" and ".join(bounds)] if bounds else []
    return f"({'; '.join(dict.fromkeys(said))})" if said else ""


def _inline(value: Any) -> str:
    """Return a value as YAML in one line; nothing for None."""
    if value is None:
        return ""
    written: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return written.removesuffix("...\n").strip()


def _escape_bars(cell: str) -> str:
    """Return a cell whose bars outside code do not end it; those inside never do."""
    parts = cell.split("`")
    return "`".join(part if n % 2 else part.replace("|", "\\|") for n, part in enumerate(parts))


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
