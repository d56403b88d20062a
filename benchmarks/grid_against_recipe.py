"""How much faster is a grid of students than the usual recipe, and are they as good? Reuters R8.

Three `layers` students (3, 2 and 1 layers) of the demo's teacher, a MiniLM fine-tuned on 600 gold
rows outside the clock, learn from 1,000 and from all 5,485 official training rows, gold included,
in 2 epochs of batches of 32 rows of at most 96 tokens, on 2 threads. The peers do the same steps: a
`Trainer` whose loss asks the teacher in every step, with its library's defaults ("recipe") or with
this library's learning rate, objective and layers ("recipe, our choices"), and TextBrewer's
`GeneralDistiller` (benchmarks/peers.py). Everybody's time has models loaded and rows tokenised in
it; ours has the labelling too, once for the three. In each round ours run first and once more after
the peers, and the mean of both counts. Nobody is scored on the clock. Peers run in this process, so
what this library sets for threads, kernels and memory is theirs too.

After every sixteenth of our steps the clock stops and 1,000 fixed rows of the official test set are
scored; the time to equal accuracy ends when a student first reaches what the peer's student of that
depth ends with on them. The other 1,189 rows give the final accuracy. On 1,000 rows ours and the
recipe that is better on validation learn from two more seeds, for the accuracy. Prints tables for
people and, as its last line, one JSON object:

- ``speedup_equal_steps``: time of a peer over ours; the worse of recipe and TextBrewer, and of the
  two numbers of rows.
- ``speedup_equal_accuracy``: the same to equal accuracy; 0 where one of ours never reaches it.
- ``worst_accuracy_gap_points``: how far a student of ours is below that better recipe's in final
  accuracy, mean of three seeds on 1,000 rows; the worst depth. Below 0 where ours is better.

Every finished measurement is kept in .potstill/benchmarks and not made again while code, packages
and machine stay the same. `--smoke` only shows that everything works, in a minute. Needs `make
demo` first, for the data, and requirements-bench.txt.
"""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from datasets import disable_progress_bars
from peers import PEERS, Task
from reuters import read_official, say_machine
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
)
from transformers.utils import logging as transformers_logging

from distill_tasks.config import DistillConfig, load_config
from distill_tasks.core.digests import digest, digest_file
from distill_tasks.core.environment import describe_machine, list_versions
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import NO_LABEL, Corpus, Split
from distill_tasks.data.rows import read_corpus
from distill_tasks.measuring.latency import fixed_threads
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.results.references import TeacherReference
from distill_tasks.results.run import OpenRun, make_training_set
from distill_tasks.results.teacher import make_teacher
from distill_tasks.stages.label import label_rows
from distill_tasks.students import LayersStudent
from distill_tasks.students.base import TrainingSet
from distill_tasks.training import trainer as training
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.device import choose_device
from distill_tasks.training.objective import Objective

ROOT = Path(__file__).parents[1]
CODE_VERSION = 1
"""Raised when a change of this file changes what is measured."""
CODE = (
    "benchmarks/peers.py",
    "distill_tasks/training/classifier.py",
    "distill_tasks/training/device.py",
    "distill_tasks/training/first_token.py",
    "distill_tasks/training/interruption.py",
    "distill_tasks/stages/label.py",
    "distill_tasks/training/losses.py",
    "distill_tasks/core/memory.py",
    "distill_tasks/students/layers.py",
    "distill_tasks/students/transformer.py",
    "distill_tasks/teachers/sequence_classifier.py",
    "distill_tasks/training/batches.py",
    "distill_tasks/training/recipe.py",
    "distill_tasks/training/token_store.py",
    "distill_tasks/training/tokens.py",
    "distill_tasks/training/trainer.py",
    "distill_tasks/training/working_copy.py",
)
"""Whose change makes everything be measured again: peers and ours belong to the same run."""

DEPTHS = (3, 2, 1)
BATCH_ROWS = 32
THREADS = 2
VALIDATION_ROWS = 1_000
CHECKS = 16
"""Times that a student of ours is scored on the way."""
OBJECTIVE = Objective(temperature=2.0, alpha=0.9)
OURS = "ours"
RECIPES = ("recipe", "recipe, our choices")
COUNTED = ("recipe", "TextBrewer")
"""Peers whose times the figures hold, as people use them."""


@dataclass(frozen=True)
class Round:
    """One turn of everybody, on the same rows from the same seed."""

    rows: int
    seed: int
    peers: tuple[str, ...] = ()
    """Who is timed beside ours; when empty, the better recipe runs for its accuracy alone."""
    epochs: int = 2


ROUNDS = (
    Round(5_485, 13, ("recipe",)),
    Round(1_000, 13, (*RECIPES, "TextBrewer")),
    Round(1_000, 14),
    Round(1_000, 15),
)
SMOKE = (Round(64, 13, (*RECIPES, "TextBrewer"), epochs=1), Round(64, 14, epochs=1))


@dataclass(frozen=True)
class Check:
    """How good a student is on validation, and when."""

    seconds: float
    """Since its loading began, without the scoring."""
    accuracy: float


@dataclass(frozen=True)
class Trained:
    """What one student took and how good it is."""

    seconds: float
    held_out: float
    checks: tuple[Check, ...]
    """On the way, the last one at the end."""

    def seconds_to(self, other: Trained) -> float:
        """Return when it first was as good as another ended, infinity where it never was."""
        goal = other.checks[-1].accuracy
        return next((c.seconds for c in self.checks if c.accuracy >= goal), float("inf"))


@dataclass(frozen=True)
class Grid:
    """What one contender took for its students, deepest first."""

    students: tuple[Trained, ...]
    labelling_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """The whole time."""
        return self.labelling_seconds + sum(student.seconds for student in self.students)

    def seconds_to(self, other: Grid) -> float:
        """Return the time until each student was as good on validation as the other's ended."""
        pairs = zip(self.students, other.students, strict=True)
        return self.labelling_seconds + sum(ours.seconds_to(theirs) for ours, theirs in pairs)


@dataclass(frozen=True)
class Measured:
    """What one round found."""

    round: Round
    ours: tuple[Grid, ...]
    """Two where peers were timed: before them and after."""
    peers: dict[str, Grid]

    @property
    def our_seconds(self) -> float:
        """The mean of our whole times."""
        return fmean(grid.seconds for grid in self.ours)

    def seconds_to(self, peer: str) -> float:
        """Return the mean of our times to a peer's accuracy."""
        return fmean(grid.seconds_to(self.peers[peer]) for grid in self.ours)


class EvalSplit:
    """Rows with gold, tokenised once, in batches of similar length."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: Split, max_length: int) -> None:
        self.rows = rows
        order = np.array(sorted(range(len(rows)), key=lambda row: len(rows.texts[row])))
        self.batches = []
        for start in range(0, len(order), BATCH_ROWS):
            part = rows.take(order[start : start + BATCH_ROWS])
            inputs = tokenizer(
                list(part.texts),
                truncation=True,
                max_length=max_length,
                padding=True,
                return_tensors="pt",
            )
            self.batches.append((inputs, torch.from_numpy(part.gold)))

    @torch.no_grad()
    def score(self, model: PreTrainedModel) -> float:
        """Return the share of rows that a model gets right, and leave it as it was.

        Everybody's models read in bfloat16 where that is fast.
        """
        was_training, device = model.training, choose_device()
        model.eval()
        with torch.autocast(device.kind, torch.bfloat16, enabled=device.bf16):
            right = [
                (model(**inputs.to(model.device)).logits.argmax(dim=-1).cpu() == gold)
                for inputs, gold in self.batches
            ]
        model.train(was_training)
        return float(torch.cat(right).float().mean())


class Watch(TrainerCallback):
    """Scores a student on its way, with the clock stopped."""

    def __init__(self, eval_split: EvalSplit, checks: int) -> None:
        self.eval_split = eval_split
        self.wanted = checks
        self.checks: list[Check] = []
        self.stopped_seconds = 0.0
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds on the clock."""
        return time.perf_counter() - self.start - self.stopped_seconds

    def on_step_end(
        self, _args: Any, state: Any, _control: Any, model: PreTrainedModel, **_: Any
    ) -> None:
        """Score after every such part of the steps, the last one included."""
        if state.global_step % -(-state.max_steps // self.wanted) and (
            state.global_step < state.max_steps
        ):
            return
        seconds, stopped = self.seconds, time.perf_counter()
        self.checks.append(Check(seconds, self.eval_split.score(model)))
        self.stopped_seconds += time.perf_counter() - stopped


@contextmanager
def watched(callback: TrainerCallback) -> Iterator[None]:
    """Have every training of the library call back, too."""
    listed: Callable[..., list[TrainerCallback]] = training._callbacks
    training._callbacks = lambda *arguments: [*listed(*arguments), callback]
    try:
        yield
    finally:
        training._callbacks = listed


@dataclass(frozen=True)
class Bench:
    """What all rounds share: rows, teacher, exams, and where findings are kept."""

    config: DistillConfig
    teacher: TeacherReference
    model: Checkpoint
    train: Split
    validation: EvalSplit
    held_out: EvalSplit
    code: str
    """Digest of what is measured, as it was loaded."""
    store: Store

    def draw(self, rows: int) -> Split:
        """Return so many training rows, always the same ones."""
        order = np.random.default_rng(self.config.seed).permutation(len(self.train))
        return self.train.take(np.sort(order[:rows]))

    def shrink(self) -> Bench:
        """Return the bench with exams too short to tell anything."""
        tokenizer = AutoTokenizer.from_pretrained(self.model.model, trust_remote_code=False)
        rows = self.validation.rows.take(np.arange(BATCH_ROWS))
        eval_split = EvalSplit(tokenizer, rows, self.model.max_length)
        return replace(self, validation=eval_split, held_out=eval_split)

    def remember(self, turn: Round, who: str, make: Callable[[], Grid]) -> Grid:
        """Return what was measured before, or measure it now."""
        about = [self.code, list_versions(), describe_machine(), THREADS]
        rows = [self.teacher.digest, self.draw(turn.rows).digest, self.validation.rows.digest]
        key = digest(about, rows, turn.seed, turn.epochs, who)
        grid, kept = self.store.remember("grid_against_recipe", key, Grid, make)
        _say(
            f"{turn.rows} rows, seed {turn.seed}, {who}: {grid.seconds:.1f} s{' (kept)' * kept}, "
            f"final {_show([s.held_out for s in grid.students])}"
        )
        return grid


def main() -> None:
    """Print the tables and the JSON line."""
    if find_spec("textbrewer") is None:
        sys.exit("TextBrewer is missing. Install requirements-bench.txt with --no-deps.")
    smoke = "--smoke" in sys.argv[1:]
    _hush()
    with fixed_threads(THREADS), tempfile.TemporaryDirectory() as scratch:
        bench = open_bench(Path(scratch) if smoke else None)
        if not smoke:
            _warm_up(bench)
        measured = run_rounds(bench, SMOKE if smoke else ROUNDS)
    timed = [one for one in measured if one.round.peers]
    print(markdown_table([row for one in timed for row in list_times(one)]), end="\n\n")
    sizes = dict.fromkeys(one.round.rows for one in measured)
    by_rows = [[one for one in measured if one.round.rows == rows] for rows in sizes]
    print(markdown_table([row for part in by_rows for row in list_accuracies(part)]), end="\n\n")
    print(say_machine(THREADS), end="\n\n")
    figures = find_figures(timed, max(by_rows, key=len))
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def open_bench(scratch: Path | None) -> Bench:
    """Read the official rows of R8, and find or make the demo's teacher.

    With a scratch folder nothing is found and nothing kept, and the teacher learns for one epoch.
    """
    config = load_config(ROOT / "examples/reuters/distill.yaml")
    if scratch is not None:
        hasty = config.teacher.model_copy(update={"epochs": 1})
        config = config.model_copy(update={"work_dir": str(scratch), "teacher": hasty})
    corpus = read_corpus(config.data, config.seed)
    teacher = make_teacher(config, corpus)
    assert teacher.model is not None
    train, test = (_read_official(part, corpus.classes) for part in ("train", "test"))
    order = np.random.default_rng(config.seed).permutation(len(test))
    tokenizer = AutoTokenizer.from_pretrained(teacher.model.model, trust_remote_code=False)
    validation, held_out = (
        EvalSplit(tokenizer, test.take(rows), teacher.model.max_length)
        for rows in (order[:VALIDATION_ROWS], order[VALIDATION_ROWS:])
    )
    code = digest(CODE_VERSION, [digest_file(ROOT / path) for path in CODE])
    store = Store(scratch or ROOT / ".potstill/benchmarks")
    bench = Bench(config, teacher, teacher.model, train, validation, held_out, code, store)
    return bench.shrink() if scratch else bench


def _read_official(part: str, classes: Sequence[str]) -> Split:
    rows = read_official("r8", part)
    gold = np.array([classes.index(label) for label in rows["label"]], np.int64)
    return Split(tuple(rows["text"]), gold)


def run_rounds(bench: Bench, rounds: Sequence[Round]) -> list[Measured]:
    """Return what every round found, in their order."""
    measured: list[Measured] = []
    for turn in rounds:
        if turn.peers:
            measured.append(run_timed(bench, turn))
            continue
        ours = bench.remember(turn, OURS, partial(measure_ours, bench, turn))
        better = find_better(measured[-1])
        measured.append(Measured(turn, (ours,), {better: measure_peer(bench, turn, better)}))
    return measured


def run_timed(bench: Bench, turn: Round) -> Measured:
    """Have ours, every peer, and ours again do the same work."""
    first = bench.remember(turn, f"{OURS}, first", partial(measure_ours, bench, turn))
    peers = {name: measure_peer(bench, turn, name) for name in turn.peers}
    again = bench.remember(turn, f"{OURS}, again", partial(measure_ours, bench, turn))
    return Measured(turn, (first, again), peers)


def find_better(measured: Measured) -> str:
    """Return the recipe whose students are better on validation, all depths together."""
    ends = {
        name: fmean(student.checks[-1].accuracy for student in grid.students)
        for name, grid in measured.peers.items()
        if name in RECIPES
    }
    return max(ends, key=lambda name: ends[name])


def measure_ours(bench: Bench, turn: Round) -> Grid:
    """Label rows into a fresh folder and train our students on the answers."""
    rows = bench.draw(turn.rows)
    unscored = Split(rows.texts[:1], np.array([NO_LABEL]))  # epochs do not end with an evaluation
    corpus = Corpus({"train": rows, "validation": unscored}, bench.teacher.classes)
    with tempfile.TemporaryDirectory() as work:
        config = bench.config.model_copy(update={"work_dir": work})
        start = time.perf_counter()
        labels = label_rows(config, corpus, bench.teacher).open()
        run = OpenRun(config, corpus, bench.teacher, labels, OBJECTIVE)
        training_set = make_training_set(run, turn.seed)
        labelling_seconds = time.perf_counter() - start
        students = [train_ours(bench, training_set, turn, depth) for depth in DEPTHS]
    return Grid(tuple(students), labelling_seconds)


def train_ours(bench: Bench, training_set: TrainingSet, turn: Round, depth: int) -> Trained:
    """Train one of our students as a run does, watching it where it is timed."""
    student = LayersStudent(layers=depth, epochs=turn.epochs, batch_rows=BATCH_ROWS)
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(bench.validation, CHECKS if turn.peers else 1)
        with watched(watch):
            student.train(training_set, Path(folder))
        seconds = watch.seconds
        trained = AutoModelForSequenceClassification.from_pretrained(
            folder, trust_remote_code=False
        )
    return Trained(seconds, bench.held_out.score(trained), tuple(watch.checks))


def measure_peer(bench: Bench, turn: Round, name: str) -> Grid:
    """Have a peer train its students; each is kept by itself, as it takes minutes."""
    students: list[Trained] = []
    for depth in DEPTHS:
        who = f"{name}, depth {depth}"
        grid = bench.remember(turn, who, partial(train_peer, bench, turn, name, depth))
        students += grid.students
    return Grid(tuple(students))


def train_peer(bench: Bench, turn: Round, name: str, depth: int) -> Grid:
    """Have a peer train one student."""
    task = Task(
        rows=bench.draw(turn.rows),
        teacher=Path(bench.model.model),
        base=ROOT / bench.config.teacher.base,
        max_length=bench.model.max_length,
        layers=depth,
        epochs=turn.epochs,
        batch_rows=BATCH_ROWS,
        seed=turn.seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        student = PEERS[name](task, Path(folder))
        seconds = time.perf_counter() - start
    end = Check(seconds, bench.validation.score(student))
    return Grid((Trained(seconds, bench.held_out.score(student), (end,)),))


def list_times(measured: Measured) -> list[dict[str, str]]:
    """Return the times of everybody in one round, beside ours."""
    rows, ours = f"{measured.round.rows:,}", measured.our_seconds
    labelling = fmean(grid.labelling_seconds for grid in measured.ours)
    both = " and ".join(f"{grid.seconds:.1f}" for grid in measured.ours)
    said = f"{both}, of it labelling {labelling:.1f}"
    table = [_list_time(rows, OURS, said, "1×", "–", "–")]
    for name, grid in measured.peers.items():
        reached = measured.seconds_to(name)
        when = f"{reached:.1f}" if reached < float("inf") else "never"
        ratios = [f"{grid.seconds / seconds:.1f}×" for seconds in (ours, reached)]
        table.append(_list_time(rows, name, f"{grid.seconds:.1f}", ratios[0], when, ratios[1]))
    return table


def _list_time(
    rows: str, name: str, seconds: str, steps: str, reached: str, accuracy: str
) -> dict[str, str]:
    return {
        "rows": rows,
        "contender": name,
        "seconds": seconds,
        "over ours, equal steps": steps,
        "ours as good after seconds": reached,
        "over ours, equal accuracy": accuracy,
    }


def list_accuracies(measured: list[Measured]) -> list[dict[str, str]]:
    """Return the final accuracies on one number of rows, means over seeds."""
    table = []
    for name in (OURS, *dict.fromkeys(name for one in measured for name in one.peers)):
        with_it = [one for one in measured if name in (OURS, *one.peers)]
        gaps = {} if name == OURS else find_gaps(measured, name)
        means = _final_accuracies(with_it, name)
        table.append(
            {
                "rows": f"{measured[0].round.rows:,}",
                "contender": name,
                "seeds": str(len(with_it)),
                **{f"depth {depth}": f"{mean:.4f}" for depth, mean in means.items()},
                **{
                    f"points above ours, {depth}": f"{gaps[depth]:+.2f}" if gaps else "–"
                    for depth in DEPTHS
                },
            }
        )
    return table


def find_figures(timed: list[Measured], seeds: list[Measured]) -> dict[str, float]:
    """Return the figures of the last line; ``seeds`` are rounds on the same number of rows."""
    counted = [(one, name) for one in timed for name in COUNTED if name in one.peers]
    steps = [one.peers[name].seconds / one.our_seconds for one, name in counted]
    accuracy = [one.peers[name].seconds / one.seconds_to(name) for one, name in counted]
    return {
        "speedup_equal_steps": min(steps),
        "speedup_equal_accuracy": min(accuracy),
        "worst_accuracy_gap_points": max(find_gaps(seeds, find_better(seeds[0])).values()),
    }


def find_gaps(measured: list[Measured], peer: str) -> dict[int, float]:
    """Return by how many points a peer is above ours, by depth, over the seeds it had."""
    common = [one for one in measured if peer in one.peers]
    ours, theirs = _final_accuracies(common, OURS), _final_accuracies(common, peer)
    return {depth: 100 * (theirs[depth] - ours[depth]) for depth in DEPTHS}


def _final_accuracies(measured: list[Measured], name: str) -> dict[int, float]:
    """Return the mean over rounds by depth; of ours those of a round count as one."""
    return {
        depth: fmean(
            fmean(grid.students[number].held_out for grid in grids)
            for grids in (one.ours if name == OURS else (one.peers[name],) for one in measured)
        )
        for number, depth in enumerate(DEPTHS)
    }


def _warm_up(bench: Bench) -> None:
    """Have everybody import and compile what is made once in a process, off the clock."""
    turn, bench = Round(2 * BATCH_ROWS, 0, (), epochs=1), bench.shrink()
    measure_ours(bench, turn)
    for name in PEERS:
        train_peer(bench, turn, name, 1)


def _hush() -> None:
    """Keep libraries from talking about what is meant to be."""
    disable_progress_bars()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("Distillation").setLevel(logging.WARNING)  # TextBrewer's
    warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true")


def _show(values: Sequence[float]) -> str:
    return "/".join(f"{value:.3f}" for value in values)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
