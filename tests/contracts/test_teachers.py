"""What every kind of teacher keeps to, a toy included that is one class and one line more."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import pandas as pd
import pytest
import yaml
from answering import judge, register_words
from endpoint import ScriptedEndpoint
from pydantic import Field
from samples import CLASSES, make_rows

from distill_tasks.config import DistillConfig
from distill_tasks.core.digests import digest
from distill_tasks.core.errors import InputError
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.rows import read_corpus
from distill_tasks.results.grid import first_trials
from distill_tasks.results.references import TeacherReference
from distill_tasks.results.run import OpenRun
from distill_tasks.results.teacher import make_teacher, teacher_context
from distill_tasks.results.trained import train_one
from distill_tasks.serving.served_model import open_model
from distill_tasks.stages.label import drop_unanswered, label_rows
from distill_tasks.stages.plan import plan_grid
from distill_tasks.stages.prepare import check_config, keep_corpus
from distill_tasks.teachers import Teacher, TeacherConfig
from distill_tasks.teachers.base import join_identity


class LengthTeacher(Teacher):
    """A toy: the longer a text, the later its class."""

    kind: Literal["length"] = "length"
    scale: float = 1.0
    shortest: int = 0
    """Characters of the shortest text that it answers."""

    def check(self, columns, problem):
        return None

    def check_rows(self, corpus, columns):
        return []

    def digest(self, corpus, seed, balanced):
        return digest(self.kind, self.scale, self.shortest, corpus.classes, corpus.problem)

    def answers(self, texts, context):
        middles = 25 + 10 * np.arange(len(context.corpus.classes))
        for row, text in enumerate(texts):
            if len(text) < self.shortest:
                continue
            logits = -self.scale * np.abs(len(text) - middles) / 10
            yield np.array([row]), logits[None].astype(np.float32)


class ToyConfig(DistillConfig):
    """The configuration with one more kind in its union."""

    teacher: Annotated[TeacherConfig | LengthTeacher, Field(discriminator="kind")]


@dataclass(frozen=True)
class Kind:
    """How one kind is set up in a folder, and what must change its digest."""

    settings: dict
    source: str | None
    """The setting that names the file or folder it reads."""
    changes: dict
    """Settings that matter, each with another value."""


def make_members(weight: float) -> list[dict]:
    """Return members of an ensemble whose classes have different orders."""
    functions = ("answering:by_words", "answering:backwards")
    first, second = ({"teacher": {"kind": "callable", "function": one}} for one in functions)
    return [first | {"weight": weight}, second]


LICENCE = {"name": "none", "url": "https://example.org/licence", "may_train": "yes"}
KINDS = {
    "finetune": Kind(
        {"base": "base", "max_length": 16, "epochs": 1},
        "base",
        {"max_length": 17, "epochs": 2, "learning_rate": 1e-3, "batch_rows": 8},
    ),
    "transformers": Kind({"model": "base", "max_length": 16}, "model", {"max_length": 17}),
    "saved": Kind({"path": "answers.parquet"}, "path", {"values": "logits"}),
    "causal_lm": Kind(
        {"model": "causal", "max_length": 128, "order": "one"},
        "model",
        {"max_length": 127, "order": "both", "labels": "names", "prompt": {"about": "Animals."}},
    ),
    "api": Kind(
        {"model": "oracle-large", "licence": LICENCE},
        None,
        {
            "order": "one",
            "method": "votes",
            "samples": 3,
            "answer_tokens": 4,
            "max_characters": 500,
            "too_long": "refuse",
            "prompt": {"about": "Animals."},
        },
    ),
    "callable": Kind(
        {"function": "answering:by_words"},
        None,
        {"version": 2, "values": "logits", "function": "answering:backwards"},
    ),
    "mlflow": Kind(
        {"model": "models:/words/1"}, None, {"model": "models:/words@teacher", "values": "logits"}
    ),
    "ensemble": Kind(
        {"members": make_members(1.0)},
        None,
        {
            "members": make_members(2.0),
        },
    ),
    "length": Kind({}, None, {"scale": 2.0, "shortest": 1}),
}
SOURCES = {name: kind.source for name, kind in KINDS.items() if kind.source is not None}


def write_rows(folder: Path, base: Path, causal: Path) -> None:
    """Write splits, models and a file of answers, from which every kind can be set up."""
    rows = make_rows(120, seed=1)
    for name, part in {"train": rows[:60], "held_out": rows[60:]}.items():
        part.to_parquet(folder / f"{name}.parquet", index=False)
    shutil.copytree(base, folder / "base")
    shutil.copytree(causal, folder / "causal")
    said = 0.1 + 0.7 * np.eye(3)[rows["label"].map(CLASSES.index)]
    answers = pd.DataFrame(said[:, ::-1], columns=list(CLASSES[::-1]))
    answers.assign(text=rows["text"]).to_parquet(folder / "answers.parquet", index=False)
    for seed in (1, 2):
        register_words(f"sqlite:///{folder}/mlflow.db", folder, seed=seed)


def write_config(folder: Path, kind: str, **changes) -> dict:
    """Return a configuration as plain data whose teacher is of a kind."""
    settings = KINDS[kind].settings | changes
    if kind in SOURCES:
        settings[SOURCES[kind]] = str(folder / settings[SOURCES[kind]])
    if kind == "api":
        settings["base_url"] = (folder / "endpoint").read_text()
    return {
        "name": "contract",
        "work_dir": str(folder / "work"),
        "data": {name: str(folder / f"{name}.parquet") for name in ("train", "held_out")},
        "teacher": {"kind": kind, **settings},
        "students": [{"family": "bag_of_words", "max_features": 200}],
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        "registry": {"model": "contract"},
    }


def parse(folder: Path, kind: str, **changes) -> DistillConfig:
    return ToyConfig.model_validate(write_config(folder, kind, **changes))


def read(config: DistillConfig) -> Corpus:
    classes = config.teacher.check(config.data, config.problem)
    return read_corpus(config.data, config.seed, classes, config.problem)


@dataclass(frozen=True)
class Case:
    """One kind of teacher, checked and made."""

    kind: str
    folder: Path
    config: DistillConfig
    corpus: Corpus
    made: TeacherReference

    @property
    def teacher(self) -> Teacher:
        return self.config.teacher

    def ask(self, texts):
        """Return row numbers (rows,) and logits (rows, classes) as they come."""
        made = self.made
        context = teacher_context(self.config, self.corpus, made.model, made.identity)
        batches = self.teacher.answers(texts, context)
        rows, logits, *_ = zip(*batches, strict=True)
        return np.concatenate(rows), np.concatenate(logits)

    def digest(self, config: DistillConfig, seed: int = 0) -> str:
        teacher = config.teacher
        identity = teacher.identify(teacher_context(config, self.corpus))
        return join_identity(teacher.digest(self.corpus, seed, balanced=False), identity)


@pytest.fixture(scope="module")
def folder(tiny_base, tiny_causal, empty_mlflow, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    write_rows(folder, tiny_base, tiny_causal)
    with ScriptedEndpoint(judge) as endpoint:
        (folder / "endpoint").write_text(endpoint.url)
        yield folder


@pytest.fixture(scope="module", params=KINDS)
def case(request, folder):
    config = parse(folder, request.param)
    corpus = read(config)
    return Case(request.param, folder, config, corpus, make_teacher(config, corpus))


def test_every_kind_of_the_union_is_held_to_this():
    kinds = get_args(get_args(TeacherConfig)[0])
    assert {kind.model_fields["kind"].default for kind in kinds} == KINDS.keys() - {"length"}
    assert all(issubclass(kind, Teacher) for kind in kinds)


def test_settings_come_back_from_yaml(case):
    written = yaml.safe_dump(case.config.model_dump(mode="json"))
    assert ToyConfig.model_validate(yaml.safe_load(written)).teacher == case.teacher


def test_the_digest_is_the_same_wherever_the_source_lies(case, tmp_path):
    copied = Path(shutil.copytree(case.folder, tmp_path / "copy"))
    assert case.digest(parse(copied, case.kind)) == case.made.digest


def test_the_digest_changes_with_each_setting_that_matters(case):
    others = [
        parse(case.folder, case.kind, **{name: value})
        for name, value in KINDS[case.kind].changes.items()
    ]
    digests = {case.digest(other) for other in others}
    assert len({case.made.digest, *digests}) == 1 + len(others)


@pytest.mark.parametrize("kind", SOURCES)
def test_the_digest_changes_with_the_bytes_of_the_source(folder, kind, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = parse(copied, kind)
    corpus, source = read(config), Path(getattr(config.teacher, SOURCES[kind]))
    before = config.teacher.digest(corpus, 0, balanced=False)
    file = source / "model.safetensors" if source.is_dir() else source
    file.write_bytes(file.read_bytes() + b" ")
    assert config.teacher.digest(corpus, 0, balanced=False) != before


def test_the_seed_matters_only_where_the_teacher_is_trained(case):
    same = case.digest(case.config, seed=0) == case.digest(case.config, seed=1)
    assert same is case.teacher.ready


def test_classes_have_the_order_that_the_teacher_brings(case):
    own = case.teacher.check(case.config.data, case.config.problem)
    assert case.corpus.classes == (own or CLASSES)
    assert case.made.classes == case.corpus.classes


def test_every_row_is_answered_once(case):
    texts = case.corpus.texts
    rows, logits = case.ask(texts)
    assert sorted(rows) == list(range(len(texts)))
    assert np.issubdtype(rows.dtype, np.integer)
    assert (logits.dtype, logits.shape) == (np.float32, (len(texts), len(case.made.classes)))
    assert np.isfinite(logits).all()


def test_a_text_is_answered_alike_in_any_company(case):
    texts = case.corpus.texts
    (rows, logits), (fewer, alone) = case.ask(texts), case.ask(texts[:5])
    np.testing.assert_allclose(alone[np.argsort(fewer)], logits[np.argsort(rows)][:5], atol=0.05)


def test_a_teacher_that_may_answer_otherwise_is_asked_again_about_the_same_classes(case):
    if not case.teacher.rows_asked_twice:
        return
    texts = case.corpus.texts[:5]
    context = teacher_context(case.config, case.corpus, case.made.model, case.made.identity)
    rows, logits = case.ask(texts)
    again, second = case.teacher.answer_again(texts, context)
    assert again.tolist() == list(range(5))
    np.testing.assert_array_equal(second, logits[np.argsort(rows)])  # this one is not noisy


def test_what_is_ready_is_its_own_start_and_what_is_not_is_trained_once(case):
    start, made = case.teacher.start, case.made
    if case.teacher.ready:
        assert (made.model, made.seconds, made.curve, made.reused) == (start, 0.0, [], True)
        return
    assert made.model != start
    assert Path(case.config.work_dir) in made.model.model.parents
    assert (made.reused, bool(made.curve)) == (False, True)
    assert make_teacher(case.config, case.corpus).reused


def test_weights_that_are_promised_can_be_read(case):
    assert (case.made.model is None) is (case.teacher.start is None)
    for model in filter(None, (case.teacher.start, case.made.model)):
        assert model.open_tokenizer()("a")["input_ids"]
        assert model.read_config().model_type == "bert"
        assert model.max_length == 16


def test_students_that_need_weights_are_refused_where_there_are_none(case):
    needy = write_config(case.folder, case.kind) | {"students": [{"family": "layers", "layers": 1}]}
    if case.teacher.start is not None:
        assert ToyConfig.model_validate(needy).students
        return
    with pytest.raises(ValueError, match=f"a {case.kind} teacher has no weights for layers-1 to"):
        ToyConfig.model_validate(needy)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_missing_source_is_refused_in_one_line_before_rows_are_read(folder, kind):
    written = write_config(folder, kind, **{SOURCES[kind]: "nowhere"})
    written["data"]["train"] = str(folder / "lost.parquet")
    with pytest.raises(InputError) as caught:
        check_config(ToyConfig.model_validate(written))
    assert str(folder / "nowhere") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_kind_is_one_class_and_one_line_in_the_union(folder):
    """Followed as CONTRIBUTING tells it: it is checked, planned, asked and distilled from."""
    config = parse(folder, "length")
    corpus = check_config(config)
    assert len(plan_grid(config, corpus)) == 1
    teacher = make_teacher(config, corpus)
    labels = label_rows(config, corpus, teacher)
    assert (labels.asked, label_rows(config, corpus, teacher).asked) == (len(corpus.texts), 0)
    run = OpenRun(config, corpus, teacher, labels.open(), config.loss.usual_objective)
    (trial,) = first_trials(config)
    student = train_one(run, trial)
    logits = open_model(student.folder).logits(corpus.splits["held_out"].texts)
    assert logits.shape == (60, len(CLASSES))


def test_unanswered_rows_teach_nobody_and_in_evaluation_count_as_unknown(folder):
    corpus = check_config(parse(folder, "length"))
    shortest = 1 + int(np.median([len(text) for text in corpus.texts]))
    config = parse(folder, "length", shortest=shortest)
    kept, teacher = keep_corpus(config, corpus), make_teacher(config, corpus)
    labels = label_rows(config, corpus, teacher)
    assert label_rows(config, corpus, teacher).asked < labels.asked
    reduced = drop_unanswered(config, kept, labels).open()
    trained, answered = (
        [len(text) for text in rows.splits["train"].texts] for rows in (corpus, reduced)
    )
    assert answered == [length for length in trained if length >= shortest]
    assert len(answered) < len(trained)
    assert reduced.findings[-1].text.startswith(f"{len(trained) - len(answered)} rows are left out")
    for name in ("validation", "held_out"):
        assert reduced.splits[name].digest == corpus.splits[name].digest
        texts = corpus.splits[name].texts
        unknown = (labels.open().read(texts).logits == 0).all(axis=1)
        assert unknown.tolist() == [len(text) < shortest for text in texts]


def test_a_teacher_that_answers_no_row_of_train_ends_the_run_in_one_line(folder):
    config = parse(folder, "length", shortest=10_000)
    corpus = check_config(config)
    labels = label_rows(config, corpus, make_teacher(config, corpus))
    with pytest.raises(InputError, match=r"answered none of the \d+ rows of train"):
        drop_unanswered(config, keep_corpus(config, corpus), labels)
