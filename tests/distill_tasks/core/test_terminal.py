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


COLUMNS = ("model", "accuracy", "interval", "verdict", "against control", "speed-up p95")
ROWS = [
    dict(zip(COLUMNS, cells, strict=True))
    for cells in (
        ("teacher", "0.9635", "0.955–0.971", "–", "–", "1×"),
        ("layers-1-width-128-learning-rate-0.0001-onnx-int8", "0.9575", *3 * ["–"], "1,070×"),
        ("words", "0.9575", "0.949–0.966", "INCONCLUSIVE", "+5.44 [+4.48, +6.44]", "121×"),
    )
]


def draw(width, terminal=True):
    """Return the lines of a table in a terminal of a width, and the columns left out."""
    console = Terminal(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)
    left_out = console.show_table(
        "grid", ROWS, last=("against control", "interval"), chosen="words"
    )
    return console.file.getvalue().splitlines(), left_out


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (60, ["against control", "interval"]),
        (80, ["against control"]),
        (100, ["against control"]),
        (140, []),
    ],
)
def test_a_table_fits_its_terminal_by_leaving_columns_out(width, expected):
    lines, left_out = draw(width)
    assert left_out == expected
    assert max(map(len, lines)) <= width
    drawn = "\n".join(lines)
    kept = [row[title] for row in ROWS for title in COLUMNS[1:] if title not in left_out]
    assert all(cell in drawn for cell in kept)


def test_a_table_in_a_file_keeps_all_columns_and_names_whole():
    lines, left_out = draw(80, terminal=False)
    assert not left_out
    assert "layers-1-width-128-learning-rate-0.0001-onnx-int8" in "\n".join(lines)


LINE = "  static-64: behind it by up to 1.00 points, 82 % of draws; http://host/" + 70 * "x"


def say(terminal, text=LINE, **settings):
    console = Terminal(file=io.StringIO(), force_terminal=terminal, width=40, color_system=None)
    console.say(text, **settings)
    return console.file.getvalue().splitlines()


def test_a_line_is_broken_between_words_and_an_address_never():
    lines = say(True)
    assert [line.strip() for line in lines] == [
        "static-64: behind it by up to",
        "1.00 points, 82 % of draws;",
        "http://host/" + 70 * "x",
    ]
    assert [len(line) - len(line.lstrip()) for line in lines] == [2, 4, 4]


def test_a_number_and_its_unit_stay_together():
    assert say(True, f"{36 * 'a'} 82 %") == [36 * "a", "82 %"]


def test_a_line_in_a_file_is_not_broken_and_a_name_stands_before_it():
    assert say(False) == [LINE]
    assert say(False, "good", name="[/x] a") == ["[/x] a: good"]
