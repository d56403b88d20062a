import json
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from answering import judge
from command_line import potstill
from endpoint import ScriptedEndpoint
from endpoint_script import Fault, Script

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.llm import client
from distill_tasks.results.teacher import make_teacher, teacher_context
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.prepare import check_config
from distill_tasks.stages.preview import estimate_labels, try_teacher

LICENCE = {"name": "Terms", "url": "https://example.org/terms", "may_train": "yes"}
SECRET = "sk-0123456789abcdefghijABCDEFGHIJ"


@pytest.fixture
def endpoint():
    with ScriptedEndpoint(judge, Script(input_price=1.0, output_price=2.0)) as running:
        yield running


@pytest.fixture
def asked(written, endpoint):
    """A configuration, as plain data, whose teacher is the scripted endpoint."""
    written["teacher"] = {
        "kind": "api",
        "base_url": endpoint.url,
        "model": "oracle-large",
        "licence": LICENCE,
        "prices": {"input": 1.0, "output": 2.0},
        "order": "one",
    }
    written["students"] = [{"family": "bag_of_words"}]
    return written


def parse(written, **changes):
    teacher = written["teacher"] | changes
    return parse_config(written | {"teacher": teacher}, "test")


def label(config):
    corpus = check_config(config)
    return label_rows(config, corpus, make_teacher(config, corpus))


def test_rows_are_answered_once_by_the_model_that_was_served(asked, endpoint):
    first = label(parse(asked))
    requests = len(endpoint.ledger)
    again = label(parse(asked))
    assert (again.asked, len(endpoint.ledger)) == (0, requests)
    assert again.teacher == first.teacher
    texts = check_config(parse(asked)).texts
    logits = first.open().read(texts).logits
    wanted = np.array([judge(text, first.classes) for text in texts])
    assert np.abs(np.exp(logits) - wanted).mean() < 0.02


def test_a_night_without_new_rows_needs_no_endpoint(asked, endpoint):
    config = parse(asked)
    label(config)
    endpoint.script.rates = {Fault.SERVER_ERROR: 1.0}
    assert label(config).reused


def test_an_estimate_asks_nothing_and_bounds_the_price(asked, endpoint):
    config = parse(asked, self_agreement_rows=0)
    corpus = check_config(config)
    before = estimate_labels(config, corpus)
    assert len(endpoint.ledger) == 0
    assert (before.rows, before.measured, before.seconds) == (len(corpus.texts), False, None)
    label(config)
    assert endpoint.ledger.spent <= before.highest
    assert before.price == pytest.approx(endpoint.ledger.spent, rel=0.5)
    after = estimate_labels(config, corpus)
    assert (after.rows, after.measured) == (0, True)
    assert after.spent == pytest.approx(endpoint.ledger.spent)


def test_an_estimate_counts_what_is_asked_again(asked):
    config = parse(asked, self_agreement_rows=40)
    corpus = check_config(config)
    training = list(dict.fromkeys(corpus.training_rows.texts))
    context = teacher_context(config, corpus)
    before = estimate_labels(config, corpus)
    assert (before.rows, before.again) == (len(corpus.texts), 40)
    try_teacher(config, corpus)
    known = estimate_labels(config, corpus)
    assert (known.rows, known.again) == (before.rows - 16, 40 + 16)  # the known ones are compared
    label(config)
    list(config.teacher.answer_again(training[:30], context))
    after = estimate_labels(config, corpus)
    assert (after.rows, after.again, after.requests) == (0, 10, 10)


def test_rows_in_batches_are_answered_by_the_same_teacher_at_their_own_price(asked, endpoint):
    settings = {"batch": True, "prices": {"input": 1.0, "output": 2.0, "batch": 0.5}}
    config = parse(asked, **settings)
    corpus, alone = check_config(config), estimate_labels(parse(asked), check_config(parse(asked)))
    estimate = estimate_labels(config, corpus)
    assert estimate.price == pytest.approx(alone.price / 2, rel=1e-6)
    assert (estimate.in_batches, alone.in_batches) == (True, False)
    try_teacher(config, corpus)  # these wait for no batch
    assert not endpoint.batches.batches
    endpoint.script.batch_polls = 0
    labels = label(config)
    assert len(endpoint.batches.batches) == 1
    assert label(parse(asked)).teacher == labels.teacher
    (file,) = Path(config.work_dir, "replies").glob("*.sqlite")
    (spent,) = sqlite3.connect(file).execute("SELECT committed FROM totals").fetchone()
    assert spent == pytest.approx(endpoint.ledger.spent)


@pytest.mark.parametrize("kind", ["random", "uncertain"])
def test_an_estimate_counts_a_sample_alone_and_a_second_run_of_it_asks_nothing(
    asked, endpoint, kind
):
    asked["data"]["sample"] = {"rows": 40, "kind": kind}
    config = parse(asked)
    corpus = check_config(config)
    rows = 40 + len(corpus.evaluation_texts)
    assert estimate_labels(config, corpus).rows == rows
    assert len(try_teacher(config, corpus).rows) == 16
    assert label(config).asked == rows
    assert estimate_labels(config, corpus).rows == 0
    requests = len(endpoint.ledger)
    endpoint.script.rates = {Fault.SERVER_ERROR: 1.0}
    assert label(config).reused
    assert len(endpoint.ledger) == requests


def test_an_ensemble_costs_what_its_members_cost_and_shows_what_they_are_asked(asked):
    alone = parse(asked)
    corpus = check_config(alone)
    price, smoke = estimate_labels(alone, corpus), try_teacher(alone, corpus)
    free = {"kind": "callable", "function": "answering:by_words"}
    asked["teacher"] = {
        "kind": "ensemble",
        "members": [{"teacher": free}, {"teacher": asked["teacher"]}],
    }
    together = parse(asked)
    after = estimate_labels(alone, corpus)
    assert estimate_labels(together, corpus) == after
    assert after.rows == price.rows - 16
    assert try_teacher(together, corpus) == smoke
    asked["teacher"]["members"][1]["teacher"] = free | {"version": 2}
    assert estimate_labels(parse(asked), corpus) is None


def test_a_smoke_batch_shows_the_prompt_and_what_was_rejected(asked, endpoint):
    config = parse(asked, min_success_ratio=0)
    corpus = check_config(config)
    endpoint.script.rates = {Fault.REFUSED: 0.4}
    smoke = try_teacher(config, corpus)
    assert smoke.shown.startswith("[system]\nYou sort texts into classes.")
    assert len(smoke.rows) == 16
    rejected = [row for row in smoke.rows if not row.answered]
    assert 0 < len(rejected) < 16
    assert rejected[0].said.startswith("the model refuses: ")
    asked_then, endpoint.script.rates = len(endpoint.ledger), {}
    label(config)
    assert len(endpoint.ledger) - asked_then <= len(corpus.texts)  # what was answered is compared


WRONG = {
    "no price": ({"prices": None, "max_spend": 1.0}, "max_spend needs `prices`"),
    "a key": ({"api_key": SECRET}, "holds a password or a token"),
    "a key as a header": ({"model": SECRET}, "holds a password or a token"),
    "no licence": ({"licence": None}, "licence"),
    "an address": ({"base_url": "example.com"}, "base_url"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_refused_without_repeating_them(asked, name):
    changes, said = WRONG[name]
    with pytest.raises(InputError, match=said) as caught:
        parse(asked, **changes)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


REFUSED = {
    "no batches": ({"batch": True}, "has no batches"),
    "licence": ({"licence": LICENCE | {"may_train": False}}, "says may_train: no"),
    "elsewhere": ({"base_url": "https://example.com/v1"}, "The environment has no OPENAI_API_KEY"),
    "nobody": ({"base_url": "http://127.0.0.1:9/v1"}, "cannot be reached"),
    "template": ({"prompt": {"template": "nowhere"}}, "nowhere cannot be read"),
    "long": ({"max_characters": 100, "too_long": "refuse"}, "texts are longer than"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_before_anything_is_asked(asked, endpoint, monkeypatch, name):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.001)
    changes, said = REFUSED[name]
    endpoint.script.batches = False
    if name == "long":
        lengthen(asked)
    with pytest.raises(InputError, match=said) as caught:
        check_config(parse(asked, **changes))
    assert "\n" not in str(caught.value)
    assert len(endpoint.ledger) == 0


def lengthen(asked):
    path = asked["data"]["train"]
    rows = pd.read_parquet(path)
    rows.loc[0, "text"] = "long " * 100
    rows.to_parquet(path)


def test_long_texts_are_cut_and_counted(asked):
    lengthen(asked)
    findings = check_config(parse(asked, max_characters=100)).findings
    assert any("asked about without their middle" in note.text for note in findings)


def test_more_classes_than_confidences_are_stated_for_are_refused(asked):
    path = asked["data"]["train"]
    rows = pd.read_parquet(path)
    rows["label"] = [*rows["label"][:10], *(f"class {row}" for row in range(len(rows) - 10))]
    rows.to_parquet(path)
    with pytest.raises(InputError, match=r"52 classes at most; the data has \d+\. .*auto"):
        check_config(parse(asked, method="verbalised"))


def test_more_than_one_label_is_refused(asked):
    with pytest.raises(InputError, match="kind api answers with one class"):
        check_config(parse_config(parse(asked).model_dump() | {"problem": "multi_label"}, "test"))


@pytest.mark.parametrize(("said", "read"), [(True, "yes"), (False, "no"), ("ask", "ask")])
def test_yes_and_no_are_what_yaml_makes_of_them(asked, said, read):
    teacher = parse(asked, licence=LICENCE | {"may_train": said}).teacher
    assert teacher.licence.may_train == read


def test_a_licence_that_asks_must_be_accepted(asked, endpoint, tmp_path, capsys):
    asked["teacher"]["licence"] = LICENCE | {"may_train": "ask"}
    path = tmp_path / "distill.yaml"
    path.write_text(yaml.safe_dump(asked))
    code, printed = potstill(capsys, "label", path)
    assert (code, len(endpoint.ledger)) == (2, 0)
    assert "says may_train: ask" in printed
    code, printed = potstill(capsys, "label", path, "--smoke", "--accept-licence")
    assert code == 0
    assert "0 of 16 have no answer" in printed
    _, printed = potstill(capsys, "label", path, "--estimate")
    assert "price about" in printed


def test_the_key_is_sent_and_stands_nowhere(asked, endpoint, tmp_path, monkeypatch, caplog):
    endpoint.script.api_key = SECRET
    monkeypatch.setenv("MY_KEY", SECRET)
    config = parse(asked, api_key_env="MY_KEY", max_requests=20)
    with pytest.raises(Exception, match="max_requests") as caught:
        label(config)
    assert endpoint.ledger.entries[-1].status == 200
    assert SECRET not in f"{caught.value}{caplog.text}"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".sqlite" for path in files)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_the_ledger_is_beside_the_answers_and_holds_raw_replies(asked):
    config = parse(asked)
    label(config)
    (file,) = Path(config.work_dir, "replies").glob("*.sqlite")
    (reply,) = sqlite3.connect(file).execute("SELECT reply FROM calls LIMIT 1").fetchone()
    assert json.loads(reply).keys() >= {"choices", "usage", "model"}
