from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from answering import judge
from builders import open_run
from endpoint import ScriptedEndpoint
from endpoint_script import Script
from hypothesis import given
from hypothesis import strategies as st
from samples import CLASSES, make_rows, write_words
from scipy.special import softmax
from scipy.stats import binom
from sklearn.metrics import accuracy_score, f1_score

from distill_tasks.config import parse_config
from distill_tasks.data.rows import read_corpus
from distill_tasks.data.settings import SampleConfig
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.reporting.audit import say_audit
from distill_tasks.results.audit import SelfAgreement, audit_teacher
from distill_tasks.results.grid import Trial
from distill_tasks.results.run import start_run
from distill_tasks.results.teacher import make_teacher
from distill_tasks.results.trained import digest_training
from distill_tasks.stages.label import drop_unanswered, label_rows
from distill_tasks.stages.prepare import keep_corpus

LICENCE = {"name": "none", "url": "https://example.org/licence", "may_train": "yes"}
OFTEN = 0.7
"""How often the noisy oracle is sure of the class that the words say."""


@given(st.integers(1, 200), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_no_student_agrees_more_often_than_self_agreement_allows(rows, classes, seed):
    """Whatever a teacher's distributions: the best guess agrees in at most √E∑p² of rows."""
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.full(classes, 10 ** generator.uniform(-1, 1)), size=rows)
    twice, best = (shares**2).sum(axis=1).mean(), shares.max(axis=1).mean()
    assert twice <= best + 1e-12
    assert best <= np.sqrt(twice) + 1e-12


def test_the_highest_agreement_is_the_root_of_the_share():
    found = SelfAgreement(agreed=162, rows=200)
    assert found.share.value == 0.81
    assert found.highest_agreement == pytest.approx(0.9)
    assert binom.sf(161, 200, found.share.low) == pytest.approx(0.025)
    assert binom.cdf(162, 200, found.share.high) == pytest.approx(0.025)


@pytest.fixture
def words(tmp_path):
    """A configuration of saved answers whose teacher takes one cat in three for a dog."""
    written = write_words(tmp_path)
    answers = pd.read_parquet(tmp_path / "answers.parquet")
    truth = pd.concat(pd.read_parquet(path) for path in written["data"].values() if path != "label")
    truth = truth.drop_duplicates("text").set_index("text")["label"].reindex(answers["text"])
    said = truth.to_numpy().copy()
    said[np.flatnonzero(said == "cats")[::3]] = "dogs"
    for name in CLASSES:
        answers[name] = np.where(said == name, 0.6, 0.2)
    answers.to_parquet(tmp_path / "answers.parquet", index=False)
    return written, dict(zip(answers["text"], said, strict=True))


def test_the_audit_has_the_figures_of_a_second_implementation(words):
    written, said = words
    run = open_run(parse_config(written, "test"))
    audit, split = audit_teacher(run), run.corpus.splits["validation"]
    gold = [CLASSES[number] for number in split.gold]
    answers = [said[text] for text in split.texts]
    assert audit.accuracy.value == pytest.approx(accuracy_score(gold, answers))
    scores = f1_score(gold, answers, average=None, labels=CLASSES)
    assert [row["f1"] for row in audit.per_class] == pytest.approx(scores.tolist())
    right = np.array(gold) == answers
    assert audit.ece_before.value == pytest.approx(right.mean() - 0.6, abs=0.05)
    assert audit.ece_after.value < audit.ece_before.value
    assert (audit.rows, audit.confidences, audit.self_agreement) == (len(split), 1, None)
    (confusion,) = audit.confusions
    assert (confusion.right, confusion.said, confusion.rows) == ("cats", "dogs", (~right).sum())
    assert audit.words_on_gold is not None
    assert audit_teacher(run).reused


def test_it_is_told_in_a_few_lines(words):
    lines = say_audit(audit_teacher(open_run(parse_config(words[0], "test"))))
    accuracy, classes, calibration, confidences = lines
    assert accuracy.startswith("accuracy 0.")
    assert "; words on gold: " in accuracy
    assert "most often taken: cats as dogs" in classes
    assert "as it answers" in calibration
    assert confidences.endswith(" answers: only 1")


def test_without_gold_the_audit_says_so(words):
    written, _ = words
    written["data"]["label_column"] = None
    config = parse_config(written, "test")
    audit = audit_teacher(open_run(config, read_corpus(config.data, config.seed, CLASSES)))
    assert audit.accuracy is None
    assert say_audit(audit)[0].startswith("no gold in validation (")


class NoisyOracle:
    """Says what the words say in most answers, and the next class in the others."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def __call__(self, text, classes):
        values = np.array(judge(text, classes))
        best = values.argmax()
        place = best if self.generator.random() < OFTEN else (best + 1) % len(classes)
        return (0.02 + 0.94 * np.eye(len(classes))[place]).tolist()


def write_api(folder, url, rows, **teacher):
    """Return a configuration whose teacher is an endpoint that is asked about so many rows."""
    made = make_rows(rows + 60, seed=1)
    for name, part in {"train": made[:rows], "held_out": made[rows:]}.items():
        part.to_parquet(folder / f"{name}.parquet", index=False)
    usual = {"kind": "api", "base_url": url, "model": "oracle-large", "licence": LICENCE}
    written = {
        "name": "audited",
        "work_dir": str(folder / "work"),
        "data": {name: str(folder / f"{name}.parquet") for name in ("train", "held_out")},
        "teacher": usual | {"order": "one"} | teacher,
        "students": [{"family": "bag_of_words", "max_features": 200}],
        "registry": {"model": "audited"},
    }
    return parse_config(written, "test")


def test_a_noisy_teacher_is_asked_twice_once_and_agrees_with_itself_as_often_as_it_should(tmp_path):
    with ScriptedEndpoint(NoisyOracle(), Script()) as endpoint:
        run = open_run(write_api(tmp_path, endpoint.url, 200, self_agreement_rows=120))
        asked = len(endpoint.ledger.entries)
        found = audit_teacher(run).self_agreement
        assert len(endpoint.ledger.entries) == asked + 120
        expected = OFTEN**2 + (1 - OFTEN) ** 2
        assert found.rows == 120
        assert 0.001 < binom.cdf(found.agreed, found.rows, expected) < 0.999
        again = audit_teacher(run)
        assert (again.self_agreement, again.reused) == (found, True)
        assert len(endpoint.ledger.entries) == asked + 120
    assert "the teacher agrees with itself in " in say_audit(again)[-1]


def test_an_ensemble_with_such_a_member_is_asked_twice(tmp_path):
    with ScriptedEndpoint(NoisyOracle(), Script()) as endpoint:
        alone = write_api(tmp_path, endpoint.url, 60, self_agreement_rows=30)
        noisy = alone.teacher.model_dump(mode="json")
        words = {"kind": "callable", "function": "answering:by_words"}
        members = [{"teacher": noisy, "weight": 9.0}, {"teacher": words}]
        written = alone.model_dump(mode="json")
        written["teacher"] = {"kind": "ensemble", "members": members}
        run = open_run(parse_config(written, "test"))
        asked = len(endpoint.ledger.entries)
        found = audit_teacher(run).self_agreement
        assert len(endpoint.ledger.entries) == asked + 30
    assert (found.rows, found.agreed < 30) == (30, True)


def lean(text, classes):
    """Say what the words say, with a leaning to the first class of the alphabet."""
    values = np.array(judge(text, classes)) * [
        30.0 if name == CLASSES[0] else 1 for name in classes
    ]
    return (values / values.sum()).tolist()


@pytest.fixture(scope="module")
def leaning(tmp_path_factory):
    """A run whose teacher is an endpoint that leans to a class."""
    with ScriptedEndpoint(lean, Script()) as endpoint:
        folder = tmp_path_factory.mktemp("leaning")
        config = write_api(folder, endpoint.url, 300, self_agreement_rows=20)
        yield open_run(config)


def test_answers_that_lean_are_divided_by_the_prior_and_kept_as_they_were(leaning):
    texts, kept = (
        leaning.corpus.texts,
        SoftLabelStore(leaning.store.labels, leaning.teacher.digest, leaning.corpus.classes),
    )
    said, own = leaning.labels.read(texts).logits, kept.read(texts).logits
    assert leaning.prior.divide
    prior = np.exp(kept.read(leaning.corpus.training_rows.texts).logits).mean(axis=0)
    np.testing.assert_allclose(leaning.prior.prior, prior, atol=1e-6)
    np.testing.assert_allclose(softmax(own - np.log(prior), axis=1), np.exp(said), atol=1e-4)
    gold = leaning.corpus.splits["validation"].gold
    right = [
        (
            labels.read(leaning.corpus.splits["validation"].texts).logits.argmax(axis=1) == gold
        ).mean()
        for labels in (kept, leaning.labels)
    ]
    assert right[1] > right[0] + 0.2


def test_what_learns_from_divided_answers_has_another_name(leaning):
    trial = Trial(leaning.config.students[0], 0)
    undivided = replace(leaning, prior=None)
    assert digest_training(leaning, trial) != digest_training(undivided, trial)
    left = replace(leaning, prior=replace(leaning.prior, divide=False))
    assert digest_training(left, trial) == digest_training(undivided, trial)


def test_the_audit_says_that_answers_are_divided_and_asks_again_as_they_are_read(leaning):
    found = audit_teacher(leaning)
    assert found.prior == leaning.prior
    assert (found.self_agreement.agreed, found.self_agreement.rows) == (20, 20)
    (line,) = [line for line in say_audit(found) if "divided" in line]
    assert line.startswith("its answers are divided by what it answers on average: the NLL of 120 ")


@pytest.mark.parametrize("changes", [{"rows": 100}, {"rows": 300, "method": "votes"}])
def test_few_rows_and_votes_leave_a_leaning_teacher_as_it_is(tmp_path, changes):
    with ScriptedEndpoint(lean, Script()) as endpoint:
        config = write_api(tmp_path, endpoint.url, self_agreement_rows=0, **changes)
        run = open_run(config)
    assert run.prior is None
    assert run.answers_digest == run.teacher.digest == run.labels.teacher


def test_what_an_endpoint_does_not_list_is_kept_and_told(tmp_path):
    with ScriptedEndpoint(judge, Script(max_top_logprobs=2, over_cap="cut")) as endpoint:
        run = open_run(write_api(tmp_path, endpoint.url, 60, self_agreement_rows=0))
        audit = audit_teacher(run)
    texts = run.corpus.texts
    unlisted = np.array([sorted(judge(text, CLASSES))[0] for text in texts])
    np.testing.assert_allclose(run.labels.read_censored(texts), unlisted, atol=0.02)
    found = audit.censored
    assert found.rows == len(texts)
    assert found.mean == pytest.approx(unlisted.mean(), abs=0.01)
    assert found.p95 == pytest.approx(np.quantile(unlisted, 0.95), abs=0.01)
    (line,) = [line for line in say_audit(audit) if "beyond the list" in line]
    assert f"{100 * found.mean:.1f} % on average" in line


def test_a_teacher_is_asked_twice_with_the_examples_of_its_prompt_though_they_left_the_corpus(
    tmp_path,
):
    with ScriptedEndpoint(judge, Script()) as endpoint:
        config = write_api(tmp_path, endpoint.url, 60, prompt={"examples": 3})
        sample = SampleConfig(rows=20, kind="random")
        data = config.data.model_copy(update={"sample": sample})
        config = config.model_copy(update={"data": data})
        corpus = read_corpus(config.data, config.seed)
        teacher = make_teacher(config, corpus)
        labels = label_rows(config, corpus, teacher)
        reduced = drop_unanswered(config, keep_corpus(config, corpus), labels)
        found = audit_teacher(start_run(config, reduced, teacher, labels).open())
    assert found.self_agreement.rows == 20


def test_a_teacher_whose_budget_is_used_up_is_not_asked_twice(tmp_path, caplog):
    with ScriptedEndpoint(judge, Script()) as endpoint:
        config = write_api(tmp_path, endpoint.url, 60)
        run = open_run(config)
        left = config.teacher.model_copy(update={"max_requests": len(endpoint.ledger.entries)})
        run = open_run(config.model_copy(update={"teacher": left}), run.corpus)
        assert audit_teacher(run).self_agreement is None
    assert "audit: the teacher was not asked twice: " in caplog.text
