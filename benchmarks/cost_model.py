"""What do more rows and a larger teacher need? Hours, memory, storage and price, by rule of three.

Rates of this machine are those that `scale.py` measured (docs/benchmarks.md); what it cannot
measure is assumed, and each assumption stands in a table. `python cost_model.py` writes the tables
into docs/scale.md.
"""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import json
import re
from dataclasses import dataclass
from pathlib import Path

from distill_tasks.reporting.tables import markdown_table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scale.md"
SIZES = (10**5, 10**6, 10**7, 10**8, 10**9)
CLASSES = 20


@dataclass(frozen=True)
class Assumed:
    """What the model assumes, in one place."""

    tokens: int = 150
    """Of a row in its prompt, where the prompt's beginning is read once."""
    teacher_parameters: float = 70e9
    peak_flops: float = 990e12
    """Of an H100 in bfloat16, without sparsity, by its data sheet."""
    of_peak: float = 0.4
    """Share of the peak that a server of prompts without answers comes to."""
    dollars_an_hour: float = 2.5
    """Of an H100, rented by the hour."""
    dollars_for_million_tokens: float = 0.6
    """Of a 70B model behind an API; batches cost half."""
    memory_gb: int = 24
    """Of the machine that prepares the rows."""


def main() -> None:
    """Write both tables into the page."""
    measured, assumed = read_measured(), Assumed()
    rows = [describe(count, measured, assumed) for count in SIZES]
    tables = f"{markdown_table(rows)}\n\n{markdown_table(list_assumed(assumed, measured))}"
    page = PAGE.read_text(encoding="utf-8")
    marked = re.sub(
        r"(<!-- cost_model -->\n).*?(\n<!-- /cost_model -->)",
        lambda found: f"{found[1]}\n{tables}\n{found[2]}",
        page,
        flags=re.DOTALL,
    )
    PAGE.write_text(marked, encoding="utf-8")
    print(tables)


def read_measured() -> dict[str, float]:
    """Return the figures that `scale.py` printed last, from docs/benchmarks.md."""
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    section = page.split("\n## scale\n")[1]
    written = re.search(r"```json\n(.*?)\n```", section, re.DOTALL)
    assert written is not None
    measured: dict[str, float] = json.loads(written[1])
    return measured


def describe(rows: int, measured: dict[str, float], assumed: Assumed) -> dict[str, str]:
    """Return what so many rows need."""
    flops = 2 * assumed.teacher_parameters * assumed.tokens * rows
    hours = flops / (assumed.peak_flops * assumed.of_peak) / 3600
    by_api = rows * assumed.tokens / 1e6 * assumed.dollars_for_million_tokens / 2
    memory_gb = measured["base_gb"] + rows * measured["prepare_bytes_for_each_row"] / 2**30
    return {
        "rows": f"{rows:,}",
        "teacher, H100 hours": say(hours),
        "rented": f"${hours * assumed.dollars_an_hour:,.0f}",
        "by an API, in batches": f"${by_api:,.0f}",
        "store GB": say(rows * measured["disk_bytes_for_each_row"] / 1e9),
        "prepare, hours": say(rows * measured["prepare_us_for_each_row"] / 3.6e9),
        "prepare, memory GB": f"{memory_gb:,.0f}" if memory_gb > 10 else f"{memory_gb:.1f}",
        f"in {assumed.memory_gb} GB": "yes" if memory_gb < assumed.memory_gb else "no",
    }


def say(amount: float) -> str:
    """Return an amount in two digits, or whole where it has more."""
    return f"{amount:,.2g}" if amount < 100 else f"{amount:,.0f}"


def list_assumed(assumed: Assumed, measured: dict[str, float]) -> list[dict[str, str]]:
    """Return what the first table rests on."""
    known = {
        "tokens of a prompt, its common beginning read once": f"{assumed.tokens}",
        "parameters of the teacher": f"{assumed.teacher_parameters:,.0f}",
        "an H100, bfloat16": f"{assumed.peak_flops / 1e12:,.0f} TFLOP/s, of which "
        f"{assumed.of_peak:.0%} are used; ${assumed.dollars_an_hour} an hour",
        "a million tokens by an API": f"${assumed.dollars_for_million_tokens}, half in batches",
        f"store, for each row of {CLASSES} classes (measured)": (
            f"{measured['disk_bytes_for_each_row']:,.0f} bytes"
        ),
        "reading, checking and search for near repeats (measured)": (
            f"{measured['prepare_us_for_each_row']:,.0f} µs and "
            f"{measured['prepare_bytes_for_each_row']:,.0f} bytes for each row"
        ),
    }
    return [{"what": what, "taken as": value} for what, value in known.items()]


if __name__ == "__main__":
    main()
