"""Small outputs of the code that each version guards, the same on every processor.

Figures are made in double precision and rounded; of what is made in single precision only labels,
numbers of rows, names and coarse figures count. Sentences are left out: they may be put better.
"""

from __future__ import annotations

import ast
import inspect
import json
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from builders import make_latency
from language_models import save_causal_model
from onnx import helper, numpy_helper
from samples import CLASSES, make_gold_set, make_rows, make_wordy_rows, save_answers, write_words
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from distill_tasks.config import parse_config
from distill_tasks.data.corpus import NO_LABEL, Corpus, Split
from distill_tasks.data.rows import read_corpus
from distill_tasks.llm.client import Address, Client
from distill_tasks.llm.labelling import Labeller, Rejected, Way
from distill_tasks.llm.ledger import Ledger
from distill_tasks.llm.prompt import PromptConfig
from distill_tasks.llm.scoring import LabelScorer
from distill_tasks.llm.trie import LabelTrie
from distill_tasks.measuring import latency
from distill_tasks.problems.classification import balance_classes, decide
from distill_tasks.reporting.data_report import inspect_corpus
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.kept import fit_calibration
from distill_tasks.results.references import PartOfTraining, StudentReference
from distill_tasks.results.run import OpenRun, start_run
from distill_tasks.results.teacher import make_teacher
from distill_tasks.results.trained import TIMED_CALLS
from distill_tasks.scoring.calibration import calibrate
from distill_tasks.scoring.looks import spend
from distill_tasks.scoring.predictions import ask_sorted
from distill_tasks.scoring.scorecard import EvalSplit, Predictions, score
from distill_tasks.scoring.verdicts import compare_answers
from distill_tasks.serving.served_model import GRAPH, open_model
from distill_tasks.stages import halve, tune
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.prepare import keep_corpus
from distill_tasks.stages.prove import prove_all
from distill_tasks.students import (
    BagOfWordsStudent,
    LayersStudent,
    StaticStudent,
    static,
    token_vectors,
)
from distill_tasks.students.controls import MajorityClass, WordsOnGold, without_teacher
from distill_tasks.students.formats import CALIBRATION_ROWS, USUAL, export_variant, trace
from distill_tasks.students.layers import choose_layers, choose_learning_rate, copy_layers
from distill_tasks.students.narrow import narrow, read_probe
from distill_tasks.students.vocabulary import find_tokens
from distill_tasks.teachers.causal_lm import CausalLmTeacher, average
from distill_tasks.teachers.finetune import FinetuneTeacher
from distill_tasks.training import losses, trainer
from distill_tasks.training.batches import Order
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.device import choose_device
from distill_tasks.training.objective import Objective
from distill_tasks.training.recipe import Recipe
from registry import judging
from registry.served import Asked

DIGITS = 3
"""Significant digits of a figure; of what single precision makes one less."""
TINY = 1e-9
"""What is smaller counts as zero."""


@dataclass(frozen=True)
class Given:
    """What outputs are made of: a run with a saved teacher, a tiny transformer, an empty folder."""

    run: OpenRun
    teacher: Checkpoint
    folder: Path


class Speaker:
    """A model that finds the class in the words of a text, and more or less believes it."""

    classes = CLASSES

    def __init__(self, sure: float, seed: int) -> None:
        self.sure, self.seed = sure, seed

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            generator = np.random.default_rng(zlib.crc32(f"{self.seed} {text}".encode()))
            told = np.array([name in text for name in CLASSES])
            rows.append((generator.normal(size=len(CLASSES)) + self.sure * told).round(2))
        return np.array(rows, np.float32).reshape(len(texts), len(CLASSES))


def settle(output, digits=DIGITS):
    """Return an output as plain data whose figures are rounded and whose texts are short names."""
    if is_dataclass(output):
        return settle(asdict(output), digits)
    if isinstance(output, Mapping):
        return {str(key): settle(value, digits) for key, value in output.items()}
    if isinstance(output, torch.Tensor):
        output = output.detach().numpy()
    if isinstance(output, np.ndarray | np.generic):
        output = output.tolist()
    if isinstance(output, list | tuple):
        return [settle(value, digits) for value in output]
    if isinstance(output, float):
        return 0.0 if abs(output) < TINY else float(f"{output:.{digits}g}")
    return output


def start_small_run(folder: Path) -> OpenRun:
    """Return a run whose teacher's answers are saved, with rows as production sees them."""
    written = write_words(folder)
    splits = [make_wordy_rows(rows, seed) for seed, rows in enumerate((60, 90, 240, 200), 1)]
    seen = make_wordy_rows(80, seed=5, season="new")
    seen.to_parquet(folder / "production.parquet", index=False)
    save_answers([*splits, seen], folder / "answers.parquet", wrong=0.05)
    written["data"]["production"] = str(folder / "production.parquet")
    written["evaluate"] |= {"answer_precision": 0.9}
    config = parse_config(written, "test")
    corpus = read_corpus(config.data, config.seed)
    kept, teacher = keep_corpus(config, corpus), make_teacher(config, corpus)
    return start_run(config, kept, teacher, label_rows(config, corpus, teacher)).open()


def refer(run: OpenRun, name: str, speaker: Speaker, **fields) -> StudentReference:
    """Return a student that says what a speaker does, calibrated as students are."""
    key = f"{name} {speaker.sure} {speaker.seed}"
    for split in ("held_out", "production", "validation"):
        Evaluator(run, split).answers.read(key, name, lambda: speaker)
    logits = speaker.logits(run.corpus.splits["validation"].texts)
    settings = {"seed": 7, "distilled": True, "variant": "torch", "candidate": name} | fields
    return StudentReference(
        name=name if settings["seed"] == 7 else f"{name}-seed-{settings['seed']}",
        student=name.removesuffix("-onnx"),
        trained=key,
        digest=key,
        folder=Path(),
        calibration=fit_calibration(run.corpus, logits, run.config.evaluate.answer_precision),
        parameters=1,
        disk_mb=1.0,
        seconds=1.0,
        curve=[],
        reused=False,
        **settings,
    )


def refer_all(run: OpenRun) -> list[StudentReference]:
    """Return two seeds of a student, a variant of each, and two of its control."""
    return [
        refer(run, "good", Speaker(2.0, 1)),
        refer(run, "good", Speaker(2.1, 2), seed=8),
        refer(run, "good-onnx", Speaker(2.0, 1), variant="onnx_int8"),
        refer(run, "good-onnx", Speaker(1.9, 2), variant="onnx_int8", seed=8),
        refer(run, "good", Speaker(1.2, 3), distilled=False),
        refer(run, "good", Speaker(1.3, 4), distilled=False, seed=8),
    ]


def make_several_labels() -> tuple[EvalSplit, Predictions]:
    """Return a split with several labels in a text, and what a student says of it."""
    generator = np.random.default_rng(3)
    gold = (generator.random((120, 4)) < 0.3).astype(np.int64)
    ours, theirs = ((generator.normal(size=gold.shape) + 3 * gold - 1.5).round(2) for _ in range(2))
    split = Split(tuple(f"text {row}" for row in range(len(gold))), gold)
    settled = calibrate(theirs, gold.astype(bool), "multi_label", 0.8)
    teacher = Predictions(theirs, settled)
    eval_split = EvalSplit("held_out", split, teacher, (*"abcd",), "multi_label", "macro_f1")
    return eval_split, Predictions(ours, calibrate(ours, gold.astype(bool), "multi_label", 0.8))


def show_scorecards(given: Given):
    """Scores of one label and of several, of a model without gold, and of a variant."""
    run, students = given.run, refer_all(given.run)
    evaluator = Evaluator(run, "held_out")
    asked = [evaluator.ask(student) for student in students]
    several, student = make_several_labels()
    without = replace(several.split, gold=np.full_like(several.split.gold, NO_LABEL))
    return [
        asdict(score(evaluator.eval_split, asked[:2])),
        asdict(score(several, [student])),
        asdict(score(replace(several, split=without), [student])),
        evaluator.compare_variants(students, evaluator.ask_candidates(students)),
    ]


def show_calibration(given: Given):
    """What is fitted on validation, of one label and of several."""
    run, (several, student) = given.run, make_several_labels()
    logits = Speaker(3.0, 1).logits(run.corpus.splits["validation"].texts)
    return [
        fit_calibration(run.corpus, logits, 0.9),
        fit_calibration(run.corpus, logits, None),
        calibrate(student.logits, several.gold, "multi_label", 0.8),
    ]


def show_proof(given: Given):
    """Verdict, panel, parity and production check of a student with two seeds."""
    proof = settle(prove_all(given.run, refer_all(given.run), ["good"]))
    for judgement in proof["judgements"].values():
        del judgement["reason"]
        judgement["flags"] = len(judgement["flags"])
    return proof


def show_verdicts(given: Given):
    """What the gate decides about pairs of models, and whether it finds a model changed."""
    rows = given.run.corpus.splits["held_out"]
    gold = rows.decisions(len(CLASSES))
    speakers = Speaker(3.0, 1), Speaker(2.0, 2), Speaker(2.9, 3)
    answers = [decide(speaker.logits(rows.texts), "single_label") for speaker in speakers]
    found = []
    pairs = product(("accuracy", "macro_f1"), (1, 40), product(answers, repeat=2))
    for metric, look, (ours, theirs) in pairs:
        level = 2 * spend(look)
        comparison = compare_answers(gold, [ours], [theirs], metric, significance=level)
        for p95_ms, noise in ((8.0, 0.05), (8.0, 0.3), (8.9, 0.01), (9.1, 0.01)):
            latencies = make_latency(p95_ms, noise), make_latency(10.0)
            found.append([comparison, judging.decide(comparison, *latencies, 0.01, metric)[0]])
    labels = [[CLASSES[number]] for number in answers[0].argmax(axis=1)]
    asked, right = (
        Asked("models:/m/1", speakers[0], labels, [1.0] * len(labels)),
        (answers[0] & gold).any(1).mean(),
    )
    for difference in (0.0015, 0.0025):
        measured = judging.Measured(rows.digest, "accuracy", float(right) + difference)
        found.append(judging.find_change(asked, measured, rows, CLASSES) is not None)
    return found


def show_stops(given: Given):
    """Whom halving stops, and which latencies it takes for equal."""
    run, evaluator = given.run, Evaluator(given.run, "validation")
    texts = run.corpus.splits["validation"].texts
    contenders = []
    for number, (sure, p95_ms) in enumerate(product((6.0, 3.0, 1.0), (2.0, 4.0))):
        logits = Speaker(sure, number).logits(texts)
        part = PartOfTraining(1 / 4, Path(), logits, 10.0)
        asked = Predictions(logits, evaluator.calibrate(logits))
        contenders.append(halve.Contender(f"{sure} {p95_ms}", part, asked, p95_ms))
    stops = halve.SuccessiveHalving(run, evaluator)._compare(contenders, 1 / 4)
    tied = latency.tie(np.array([1.0, 1.04, 1.08, 1.2]), 0.05)
    return [stops, halve.RUNGS, halve.FEWEST_STUDENTS, tied, show_timed_shapes(given)]


def show_timed_shapes(given: Given):
    """Which students are timed as one shape, and how."""
    students = [
        LayersStudent(layers=1),
        LayersStudent(layers=1, learning_rate=0.1, epochs=9, batch_rows=8),
        LayersStudent(layers=1, width=32),
        StaticStudent(dimensions=8),
        StaticStudent(dimensions=8, epochs=2),
        BagOfWordsStudent(hidden_units=4),
    ]
    return [*(student.shape for student in students), TIMED_CALLS, show_times(given)]


def show_times(_: Given):
    """What the stopwatch says of models that take known times."""
    clock, texts = Clock(), [f"text {'long ' * (row % 5)}{row}" for row in range(40)]
    models = {
        "by length": lambda asked: clock.sleep(1e-3 * sum(map(len, asked))),
        "tiring": lambda asked: clock.sleep(7e-3 * len(asked) ** 0.5 + 1e-3 * clock.tire()),
    }
    config = latency.MeasureConfig(calls=60, batch_rows=(4, 16), threads=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "time", clock)
        found = settle(latency.time_models(models, texts, config, seed=3))
    for figures in found.values():
        del figures["device"]
    return [found, latency.thread_settings(1), latency.thread_settings(2)]


class Clock:
    """Time that goes on only where a model takes some."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.tired = 0

    def tire(self) -> int:
        self.tired += 1
        return self.tired % 50

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(1e9 * seconds)


def show_tuning(given: Given):
    """Which temperatures and α are compared by what, and of how many rows the curve is drawn."""
    run, eval_split = given.run, Evaluator(given.run, "validation").eval_split
    asked = []

    def compare(objective: Objective):
        asked.append((objective.temperature, objective.alpha))
        speaker = Speaker(2 + objective.temperature - objective.alpha, 1)
        return tune._compare(eval_split, objective, speaker.logits(eval_split.split.texts))

    losses = [
        run.config.loss.model_copy(update=settings)
        for settings in (
            {"temperature": "auto", "alpha": "auto"},
            {"temperature": 3.0, "alpha": "auto"},
            {"temperature": "auto", "alpha": 0.5},
        )
    ]
    compared = [tune._search(loss, 1.234, compare) for loss in losses]
    return [asked, compared, tune.SHARES, tune.FEWEST_TRANSFER_ROWS]


def show_data_report(given: Given):
    """The report on rows of which some are alike, with the number of its warnings."""
    splits = dict(given.run.corpus.splits)
    held_out = splits["held_out"]
    near = tuple(f"{text} more" for text in held_out.texts[:20])
    splits["transfer"] = Split((*near, *near), np.full(40, NO_LABEL))
    corpus = Corpus(splits, CLASSES)
    tokens = {name: np.arange(len(split)) for name, split in splits.items()}
    report = settle(inspect_corpus(corpus, tokens, 50))
    report["warnings"] = len(report["warnings"])
    return report


def show_answers(given: Given):
    """What models that need no torch answer, and in which batches they are asked."""
    texts = [*make_rows(60, seed=9)["text"], "", "purr", "x" * 300, "Straße ﬁn 😀 fin fin"]
    batches: list[list[str]] = []

    def ask(asked: Sequence[str]) -> Sequence[str]:
        batches.append([text[:20] for text in asked])
        return asked

    in_order = ask_sorted(ask, texts, "listener") == texts
    rows = make_rows(90, seed=1)
    gold = np.array([CLASSES.index(name) for name in rows["label"]])
    train = Split(tuple(rows["text"]), gold)
    controls = [kind(train, 3, "single_label") for kind in (MajorityClass, WordsOnGold)]
    labels = [control.logits(texts[:60]).argmax(axis=1) for control in controls]
    served = [model.logits(texts) for model in open_light_models(given.folder)]
    return [in_order, batches, labels, settle(served, DIGITS - 1)]


def open_light_models(folder: Path):
    """Open served models whose weights are plain numbers: bags of words, and a static one."""
    terms = ["purr", "fin", "fin fin", "the", " pu", "pur"]
    weights = {
        "output": np.array([[row + 1, -row, row % 2] for row in range(len(terms))], np.float32),
        "output_bias": np.array([0.5, 0.25, -1], np.float32),
    }
    about = {"runtime": "bag_of_words", "classes": CLASSES, "ngrams": 2, "characters": 3}
    words = write_model(folder / "words", about | {"words": 4}, weights | {"idf": np.ones(6)})
    (words / "vocabulary.json").write_text(json.dumps(terms))
    hashed = write_model(folder / "hashed", about | {"hashed": True}, weights)
    about = {"runtime": "static", "classes": CLASSES, "max_length": 4}
    layers = {
        "embeddings": np.arange(8, dtype=np.float32).reshape(4, 2) - 3,
        "hidden": np.array([[1, -1], [0.5, 1]], np.float32),
        "hidden_bias": np.array([0, 1], np.float32),
        "output": np.array([[1, 0, -1], [0, 2, 1]], np.float32),
        "output_bias": np.zeros(3, np.float32),
    }
    tokens = write_model(folder / "tokens", about, layers)
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "purr": 1, "fin": 2, "the": 3}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tokens / "tokenizer.json"))
    return [open_model(place) for place in (words, hashed, tokens)]


def write_model(folder: Path, about, weights) -> Path:
    """Write a served model of numpy weights."""
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps(about))
    np.savez(folder / "weights.npz", **weights)
    return folder


def show_students(given: Given):
    """What students are trained by, what they start from, and what comes of them."""
    return [
        show_losses(given),
        show_schedule(given),
        show_layers(given),
        show_static(given),
        show_bags_of_words(given),
        show_control(given),
    ]


def show_losses(_: Given):
    """The losses of fixed logits and states, and their slopes."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return values.round(decimals=2).requires_grad_()

    student, teacher, weights = draw(6, 3), draw(6, 3).detach(), torch.tensor([1.0, 2.0, 0.5])
    single = torch.tensor([0, 1, 2, NO_LABEL, 1, NO_LABEL])
    several = (draw(6, 3) > 0).long()
    several[3] = NO_LABEL
    found = [
        losses.distillation_loss(student, teacher, labels, objective, weights.double())
        for labels, terms in (
            (single, ("kl", "reverse_kl", "js", "dkd", "dist")),
            (several, ("kl", "reverse_kl", "js")),
        )
        for term in terms
        for objective in (
            Objective(2.0, 0.7, {term: 1.5}),
            Objective(1.0, 0.2, {term: 1.0}, standardize=True),
        )
    ]
    states, others, mask = draw(2, 5, 8), draw(2, 5, 8).detach(), torch.ones(2, 5)
    mask[1, 3:] = 0
    found += [
        losses.hidden_distance(states, others, mask).sum(),
        losses.hidden_mse(states, others, mask).sum(),
        losses.relation_divergence(states, others, mask, 2).sum(),
    ]
    slopes = [
        torch.autograd.grad(loss, student if number < len(found) - 3 else states)[0].norm()
        for number, loss in enumerate(found)
    ]
    gold = [losses.gold_loss(student, labels) for labels in (single, several)]
    balance = [balance_classes(labels.numpy(), 3) for labels in (single, several)]
    return [found, slopes, gold, balance]


def show_schedule(given: Given):
    """The steps of a transformer's training: order of rows, learning rate, when to stop."""
    recipe = Recipe(3, 0.001, 4, 16, seed=5, accumulated_batches=2, patience_epochs=1)
    lengths = [3 + (7 * row) % 11 for row in range(50)]
    orders = [[*Order(recipe, lengths, lambda epoch=epoch: epoch)] for epoch in range(2)]
    arguments = trainer._arguments(recipe, choose_device(), given.folder, True, False).to_dict()
    names = (
        *("num_train_epochs", "learning_rate", "warmup_steps", "lr_scheduler_type", "max_steps"),
        *("weight_decay", "per_device_train_batch_size", "gradient_accumulation_steps", "optim"),
        *("adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "label_smoothing_factor"),
        *("train_sampling_strategy", "load_best_model_at_end", "metric_for_best_model", "seed"),
    )
    return [orders, {name: arguments[name] for name in names}, asdict(recipe.split_batch())]


def show_layers(given: Given):
    """Which layers and weights a transformer student starts from, and which of them it changes."""
    teacher, training_set = given.teacher, make_gold_set(given.teacher.model, 40)
    takes = ("spaced", "first", "last", "2-4-6")
    chosen = [choose_layers(kept, 12, take) for take, kept in product(takes[:3], (1, 2, 3, 4, 6))]
    chosen.append(choose_layers(3, 12, takes[3]))
    tokenizer = AutoTokenizer.from_pretrained(teacher.model)
    kept = find_tokens(tokenizer, training_set.rows.texts[:5])
    copied = copy_layers(teacher, 2, CLASSES)
    slim = narrow(copied, 16, 32, read_probe(teacher, training_set.rows.texts))
    sizes = {name: [*weight.shape] for name, weight in slim.state_dict().items()}
    norm = sum(float(weight.double().norm()) for weight in slim.state_dict().values())
    curve = LayersStudent(layers=1, epochs=2).train(training_set, given.folder)
    return [
        chosen,
        [choose_learning_rate(layers) for layers in (1, 2, 3)],
        kept,
        find_sources(copied, copy_layers(teacher, 4, CLASSES)),
        [sizes, settle(norm, DIGITS - 1)],
        show_course(curve, given.folder, copy_layers(teacher, 1, CLASSES)),
    ]


def find_sources(student, teacher):
    """Return for each layer of a student the number of the teacher's layer that it equals."""
    ours, theirs = (
        [layer.attention.self.query.weight for layer in model.bert.encoder.layer]
        for model in (student, teacher)
    )
    return [[torch.equal(mine, other) for other in theirs].index(True) for mine in ours]


def show_course(curve, folder: Path, start):
    """At which steps a curve has which figures, which weights training changed, what it wrote."""
    from safetensors.torch import load_file

    weights, before = load_file(folder / "model.safetensors"), start.state_dict()
    changed = {
        name: not torch.equal(weight, before[name])
        for name, weight in weights.items()
        if not name.startswith("classifier")  # of a base it starts at random
    }
    points = [[sorted(point), point["epoch"], point["step"]] for point in curve]
    config = json.loads((folder / "config.json").read_text())
    settings = {name: value for name, value in config.items() if "drop" in name or "id" in name}
    return [points, changed, settings, sorted(path.name for path in folder.iterdir())]


def show_static(given: Given):
    """What a static student starts from, and the first losses of its training."""
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(12, 6)).round(2)
    tokens = [np.array(row) for row in ([1, 2, 2], [3, 4, 5, 1], [6], [7, 8, 9, 10, 11, 1])] * 10
    training_set = make_gold_set(given.teacher.model, len(tokens))
    network = static.Network(
        torch.nn.EmbeddingBag.from_pretrained(
            torch.from_numpy(vectors.astype(np.float32)), freeze=False, mode="mean", sparse=True
        ),
        *(torch.nn.Linear(*shape) for shape in ((6, 4), (4, 3))),
    )
    for layer in (network.hidden, network.output):
        shape = layer.weight.shape
        torch.nn.init.zeros_(layer.bias)
        layer.weight.data = torch.arange(shape.numel()).reshape(shape).float().sin()
    curve = static._fit(network, tokens, training_set, StaticStudent(dimensions=6, epochs=3))
    return [
        np.abs(token_vectors.reduce_dimensions(vectors, 3)),
        token_vectors.weigh_tokens(tokens, 12).astype(np.float64),
        [static.HIDDEN_UNITS, static.BATCH_ROWS],
        settle(curve, DIGITS - 1),
    ]


def show_bags_of_words(given: Given):
    """The terms that bags of words read, what they say and at which loss."""
    training_set, found = make_gold_set(given.teacher.model, 60), []
    students = [
        BagOfWordsStudent(max_features=40, ngrams=2),
        BagOfWordsStudent(max_features=60, characters=4, hidden_units=3),
        BagOfWordsStudent(max_features=32, hashed=True),
    ]
    for student in students:
        folder = given.folder / student.name
        folder.mkdir()
        curve = student.train(training_set, folder)
        vocabulary = folder / "vocabulary.json"
        terms = json.loads(vocabulary.read_text()) if vocabulary.is_file() else None
        labels = open_model(folder).logits(training_set.rows.texts).argmax(axis=1)
        settings = json.loads((folder / "model.json").read_text())
        losses = [settle(point["train/loss"], DIGITS - 1) for point in (curve[0], curve[-1])]
        found.append([terms, labels, settings, len(curve), losses])
    return found


def show_control(given: Given):
    """What a control learns in place of the teacher's answers."""
    training_set = make_gold_set(given.teacher.model, 12)
    gold = training_set.rows.gold.copy()
    gold[7:] = NO_LABEL
    training_set = replace(training_set, rows=replace(training_set.rows, gold=gold))
    control = without_teacher(training_set, LayersStudent(layers=1), None)
    return [control.rows.texts, control.rows.gold, control.objective]


def show_finetuning(given: Given):
    """What a teacher is fine-tuned by, which weights change, and what it is saved as."""
    rows = make_rows(60, seed=4)
    gold = np.array([CLASSES.index(name) for name in rows["label"]])
    splits = {
        name: Split(tuple(rows["text"][part]), gold[part])
        for name, part in (("train", slice(40)), ("validation", slice(40, 60)))
    }
    config = FinetuneTeacher(base=str(given.teacher.model), max_length=16, epochs=2)
    corpus = Corpus(splits, CLASSES)
    curve = config.train(corpus, given.folder, seed=3, balanced=True)
    course = show_course(curve, given.folder, copy_layers(given.teacher, 4, CLASSES))
    defaults = {name: field.default for name, field in FinetuneTeacher.model_fields.items()}
    del defaults["base"]
    return [course, defaults | {"base": None}, show_losses(given), show_schedule(given)]


def show_scored_labels(given: Given):
    """What a language model is asked, the order in which it likes the classes, and their mean."""
    corpus = Corpus({"train": Split(("the puppy", "purr " * 90), np.array([1, 0]))}, CLASSES)
    save_causal_model(given.folder)
    orders, shown = [(0, 1, 2), (1, 2, 0)], []
    for labels in ("codes", "names"):
        teacher = CausalLmTeacher(model=str(given.folder), max_length=128, labels=labels)
        questions, model = teacher._make_questions(corpus), teacher.local.open().float()
        for order in orders:
            asked, answered = questions.encode(corpus.texts, order), questions.encode_labels(order)
            scores = LabelScorer(model, answered, questions.end).score(asked)
            shown.append([asked, answered, scores.log_probabilities.argsort(axis=1)])
    trie = LabelTrie.build([(5,), (5, 6), (7, 8), (7, 9, 2)], end=1)
    logits = np.log(np.array([[[0.5, 0.5]], [[0.2, 0.8]]], np.float32))
    return [shown, trie.paths, trie.choices, trie.steps, average(list(logits)), orders]


def show_vocabulary(given: Given):
    """What a teacher without layers makes of its tokens: it reads plus and minus one alone."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "purr", "fin", "the"]
    (given.folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(given.folder / "vocab.txt")).save_pretrained(given.folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 0, "num_attention_heads": 2}
    model = BertModel(BertConfig(vocab_size=len(words), intermediate_size=8, **sizes))
    signs = np.array([[(-1) ** (row >> bit & 1) for bit in range(3)] for row in range(8)])
    for name, weight in model.named_parameters():
        if "embeddings" in name and "LayerNorm" not in name:
            weight.data.zero_()
    spread = np.hstack([signs, -signs, [[1, -1]] * 8])
    model.embeddings.word_embeddings.weight.data = torch.from_numpy(spread).float()
    model.save_pretrained(given.folder)
    made = token_vectors.pool_vocabulary(Checkpoint(given.folder, None, 16))
    return settle(made.astype(np.float64), 1)


def show_exports(given: Given):
    """What variants hold: their description, what goes in and out, which weights are integers.

    Tracing a model takes most of a minute: its code stands here for what it makes.
    """
    source, graph, found = given.folder / "torch", given.folder / GRAPH, []
    shutil.copytree(given.teacher.model, source)
    about = {"runtime": "transformers", "classes": CLASSES, "max_length": 16}
    (source / "model.json").write_text(json.dumps(about))
    onnx.save(make_graph(), graph)
    texts = make_rows(20, seed=2)["text"].tolist()
    for variant in ("onnx", "onnx_int8", "onnx_int8_static"):
        folder = given.folder / variant
        folder.mkdir()
        export_variant(source, variant, graph, texts, folder)
        exported = onnx.load(folder / GRAPH).graph
        about = json.loads((folder / "model.json").read_text())
        ends = [end.name for end in (*exported.input, *exported.output)]
        weights = sorted((weight.data_type, len(weight.dims)) for weight in exported.initializer)
        labels = open_model(folder).logits(texts).argmax(axis=1)
        files = sorted(path.name for path in folder.iterdir())
        found.append([about, ends, weights, labels, files])
    tracing = ast.parse(inspect.getsource(trace)).body[0]
    return [found, ast.unparse(tracing.body[1:]), USUAL, CALIBRATION_ROWS]


def make_graph() -> onnx.ModelProto:
    """Return the graph of a model that sums a number for each token and class, and doubles it."""
    table = np.array([[(7 * row + 3 * column) % 5 for column in range(3)] for row in range(64)])
    weights = {"table": table.astype(np.float32), "double": 2 * np.eye(3, dtype=np.float32)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
        helper.make_node("ReduceSum", ["tokens", "axes"], ["sums"], keepdims=0),
        helper.make_node("MatMul", ["sums", "double"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["rows", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["rows", 3])
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    constants.append(numpy_helper.from_array(np.array([1]), "axes"))
    graph = helper.make_graph(nodes, "sums", inputs, [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def show_read_replies(given: Given) -> object:
    """Return what replies to one question are read as, by each method."""
    classes, codes = (*CLASSES, "a fourth", "a fifth"), ("A", "B", "C", "D", "E")
    corpus = Corpus({"train": Split(("a",), np.array([0]))}, classes)
    ledger = Ledger(given.folder / "ledger.sqlite")
    client = Client(Address("http://127.0.0.1/v1", "none", "none"), ledger)
    listed = [{"token": token, "logprob": value} for token, value in (("A", -0.3), (" B", -2.0))]
    first = [{"token": "A", "logprob": -0.3, "top_logprobs": listed}]
    said = ("A", "B) dogs", "I cannot", '{"A": 0.7, "B": 0.3}')
    replies = [{"choices": [{"message": {"content": one}}]} for one in said]
    replies.append({"choices": [{"message": {"content": "A"}, "logprobs": {"content": first}}]})
    found = []
    for method in ("top_logprobs", "votes", "verbalised"):
        prompt = PromptConfig().make(corpus, codes, 0)
        labeller = Labeller(client, prompt, Way(method), "one")
        for reply in replies:
            answer = labeller.read([reply])
            if isinstance(answer, Rejected):
                found.append([method, answer.reason, answer.replied])
            else:
                placed = answer.place((1, 2, 0, 4, 3))
                found.append([method, placed.log_probabilities, placed.censored, placed.off_list])
    return found


OUTPUTS = {
    "distill_tasks.llm.labelling.READING_VERSION": show_read_replies,
    "distill_tasks.results.evaluator.CODE_VERSION": show_scorecards,
    "distill_tasks.results.exported.CODE_VERSION": show_exports,
    "distill_tasks.results.trained.CALIBRATION_VERSION": show_calibration,
    "distill_tasks.results.trained.CODE_VERSION": show_students,
    "distill_tasks.scoring.predictions.CODE_VERSION": show_answers,
    "distill_tasks.stages.halve.CODE_VERSION": show_stops,
    "distill_tasks.stages.measure.CODE_VERSION": show_times,
    "distill_tasks.stages.prepare.REPORT_VERSION": show_data_report,
    "distill_tasks.stages.prove.CODE_VERSION": show_proof,
    "distill_tasks.stages.search.CODE_VERSION": show_timed_shapes,
    "distill_tasks.stages.tune.CODE_VERSION": show_tuning,
    "distill_tasks.students.token_vectors.VECTORS_VERSION": show_vocabulary,
    "distill_tasks.teachers.causal_lm.CODE_VERSION": show_scored_labels,
    "distill_tasks.teachers.finetune.CODE_VERSION": show_finetuning,
    "registry.gate.CODE_VERSION": show_verdicts,
}
"""What stands for the code that each version guards."""
