import io
import subprocess
import sys

import pytest
from rich.table import Table

from distill_tasks.core.terminal import PLAIN, Terminal, degrade_characters

SAID = "p95 ≥ 3× … − 中"


def write(encoding, *shown):
    """Return what a terminal of an encoding gets to see."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    degrade_characters(stream)
    terminal = Terminal(file=stream, width=60, soft_wrap=True)
    for one in shown:
        terminal.print(one)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("encoding", "seen"),
    [
        ("utf-8", SAID),
        ("ascii", r"p95 >= 3x ... - \u4e2d"),
        ("latin-1", r"p95 >= 3× ... - \u4e2d"),
    ],
)
def test_characters_that_a_terminal_lacks_are_written_in_those_it_has(encoding, seen):
    assert write(encoding, SAID) == f"{seen}\n"


def test_a_table_stands_on_an_ascii_terminal_too():
    table = Table("name", "×")
    table.add_row("[/x]", "–")
    assert "| [/x] | - |" in write("ascii", table)


def test_half_a_character_ends_no_command():
    assert write("utf-8", "a\ud800b") == "a\\ud800b\n"


def test_all_that_replaces_is_ascii():
    assert "".join(PLAIN.values()).isascii()


def test_a_process_on_an_ascii_terminal_ends_well():
    program = (
        "from distill_tasks.core.terminal import Terminal, degrade_characters; import sys\n"
        "degrade_characters(sys.stdout, sys.stderr)\n"
        f"Terminal(soft_wrap=True).print({SAID!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"p95 >= 3x ... - \\u4e2d\n"
