import pandas as pd
import pytest
import yaml
from command_line import potstill
from samples import make_rows

from distill_tasks.config import load_config
from flows.commands.init import quote


@pytest.fixture
def tickets(tmp_path, monkeypatch):
    """A file as a help desk exports it, in the folder where the command is started."""
    monkeypatch.chdir(tmp_path)
    rows = make_rows(90, seed=1).rename(columns={"text": "body", "label": "queue: kind #1"})
    rows.insert(0, "id", range(100, 190))
    rows["subject"] = "Re: " + rows["body"]
    rows.loc[:9, "queue: kind #1"] = None
    rows.loc[10, ["body", "subject"]] = None
    rows.to_csv("tickets.csv", index=False)
    return tmp_path


def test_what_it_writes_runs_as_it_stands(capsys, tickets, tiny_base):
    code, printed = potstill(capsys, "init", "tickets.csv", "--teacher", tiny_base)
    assert code == 0, printed
    assert "tickets.csv: 90 rows, text in subject, body" in " ".join(printed.split())
    assert '3 classes in "queue: kind #1"' in " ".join(printed.split())
    assert "rows with an empty text, left out: 1" in " ".join(printed.split())
    assert "held_out: 15 rows in tickets-held-out.csv" in " ".join(printed.split())
    assert "Next: `potstill check distill.yaml`." in " ".join(printed.split())
    written = (tickets / "distill.yaml").read_text()
    assert all(f"# {line}" in written for line in printed.splitlines()[:3])
    config = load_config(tickets / "distill.yaml")
    assert config.data.text_column == ("subject", "body")
    assert config.data.transfer == "tickets-transfer.csv"
    code, printed = potstill(capsys, "check", "distill.yaml")
    assert code == 0, printed
    assert "held_out 15, transfer 10 rows; 3 classes" in " ".join(printed.split())


def test_it_says_what_must_be_named_where_no_teacher_was(capsys, tickets):
    code, printed = potstill(capsys, "init", "tickets.csv", "-o", "first.yaml")
    assert code == 0
    assert "name your teacher in it (google-bert/bert-base-uncased stands there)" in " ".join(
        printed.split()
    )
    text = (tickets / "first.yaml").read_text()
    assert "# NAME YOUR TEACHER." in text
    assert load_config(tickets / "first.yaml").teacher.base == "google-bert/bert-base-uncased"


def test_nothing_is_overwritten_unless_it_is_asked_for(capsys, tickets):
    (tickets / "distill.yaml").write_text("mine")
    code, printed = potstill(capsys, "init", "tickets.csv")
    assert code == 2
    assert "distill.yaml is there already. Give another --output, or --overwrite it." in " ".join(
        printed.split()
    )
    assert {path.name for path in tickets.iterdir()} == {"distill.yaml", "tickets.csv"}
    assert (tickets / "distill.yaml").read_text() == "mine"
    assert potstill(capsys, "init", "tickets.csv", "--overwrite")[0] == 0
    code, printed = potstill(capsys, "init", "tickets.csv", "-o", "other.yaml")
    assert code == 2
    assert "tickets-train.csv, tickets-held-out.csv, tickets-transfer.csv is there" in " ".join(
        printed.split()
    )


def test_files_that_are_given_are_used_as_they_are(capsys, tickets):
    make_rows(60, seed=1).to_json("train.jsonl", orient="records", lines=True)
    command = ["init", "train.jsonl", "--held-out", "test.jsonl", "--transfer", "more*.csv"]
    assert potstill(capsys, *command, "--transfer", "x.csv")[0] == 0
    data = load_config(tickets / "distill.yaml").data
    assert (data.train, data.held_out) == ("train.jsonl", "test.jsonl")
    assert data.transfer == ("more*.csv", "x.csv")
    assert not list(tickets.glob("train-*"))


def test_several_labels_are_written_with_what_parts_them(capsys, tickets):
    labels = ["cats;dogs", "fish", "dogs;fish"] * 20
    make_rows(60, seed=1).assign(label=labels).to_parquet("many.parquet")
    assert potstill(capsys, "init", "many.parquet")[0] == 0
    config = load_config(tickets / "distill.yaml")
    assert (config.problem, config.data.label_separator) == ("multi_label", ";")


def test_without_labels_a_teacher_that_is_ready_must_be_named(capsys, tickets, tiny_base):
    pd.DataFrame({"text": make_rows(60, seed=1)["text"]}).to_csv("plain.csv", index=False)
    code, printed = potstill(capsys, "init", "plain.csv")
    assert code == 2
    assert "no column that looks like labels. Name it (--label-column NAME), or" in " ".join(
        printed.split()
    )
    assert potstill(capsys, "init", "plain.csv", "--teacher", tiny_base)[0] == 0
    config = load_config(tickets / "distill.yaml")
    assert (config.data.label_column, config.teacher.kind) == (None, "transformers")
    assert potstill(capsys, "check", "distill.yaml")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.csv"], "nowhere.csv does not exist"),
        (["tickets.csv", "--text-column", "txt"], "tickets.csv has no column 'txt'"),
        (["tickets.csv", "--teacher", "an/encoder"], "or the commit of a hub id: --revision"),
        (["tickets.csv", "-o", "no/such/distill.yaml"], "There is no folder no/such"),
    ],
)
def test_what_cannot_be_begun_with_is_wrong_input(capsys, tickets, arguments, said):
    code, printed = potstill(capsys, "init", *arguments)
    assert code == 2
    assert said in " ".join(printed.split())
    assert [path.name for path in tickets.iterdir()] == ["tickets.csv"]


@pytest.mark.parametrize(
    "text", ["a", "no", "1", "1e5", "a: b", "# c", "ü", "two\nlines", "\x85", "\u2028", "'\"\\"]
)
def test_names_are_read_back_from_one_line(text):
    assert yaml.safe_load(f"key: {quote(text)}  # comment") == {"key": text}
    assert len(quote(text).splitlines()) == 1
