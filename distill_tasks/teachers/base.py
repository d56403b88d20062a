"""The protocol of every kind of teacher: everything the rest of the project needs of one."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import InputError
from distill_tasks.core.notes import Note, Rank
from distill_tasks.core.settings import Settings
from distill_tasks.data.sampling import list_asked
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.classifier import SequenceClassifier

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from distill_tasks.core.progress import ProgressFile
    from distill_tasks.core.store import Store
    from distill_tasks.data.corpus import Corpus
    from distill_tasks.data.settings import RowFormat
    from distill_tasks.llm.estimate import Estimate
    from distill_tasks.llm.writing import Writer
    from distill_tasks.problems.classification import Problem
    from distill_tasks.training.curve import Curve

    Batches = Iterator[
        tuple[NDArray[np.int64], NDArray[np.float32]]
        | tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]
    ]
    """Batches of row numbers (rows,) and logits (rows, classes); a row occurs once at most.

    Where a reply may say nothing of some classes, the probability (rows,) that they share follows.
    """

logger = logging.getLogger("potstill")

ONE_HOT = Note(
    Rank.KNOW,
    "the teacher's answers are one-hot, all probability on one class in every row: soft labels, "
    "which say how likely the others are, would teach more",
)
"""What is said of a teacher whose answers are hard labels."""


@dataclass(frozen=True)
class LabellingContext:
    """What a teacher has at hand when it answers."""

    corpus: Corpus
    columns: RowFormat
    store: Store
    """The store of the run, where a teacher may keep what answering costs."""
    weights: Checkpoint | None = None
    """The teacher's weights, if it has any here."""
    tracking_uri: str = ""
    """Where MLflow records the run."""
    identity: str = ""
    """What `Teacher.identify` returned in this run."""
    sample: Sequence[str] | None = None
    """The texts of train and transfer that it labels; None if it labels all."""

    @property
    def texts(self) -> list[str]:
        """The different texts that it is asked about."""
        return list_asked(self.corpus, self.sample)

    @property
    def training_texts(self) -> list[str]:
        """Those of them that students learn from."""
        training = set(self.corpus.training_rows.texts)
        return [text for text in self.texts if text in training]


@dataclass(frozen=True)
class Tried:
    """One row that a teacher was asked about to see how it answers."""

    text: str
    said: str
    """The class with its probability, or why there is none."""
    answered: bool


class Teacher(Settings, ABC):
    """The settings of one kind of teacher, and what it can do."""

    kind: str

    ready: ClassVar[bool] = True
    """Whether it can answer without training; a teacher that is not ready is trained first."""

    in_shards: ClassVar[bool] = False
    """Whether several processes may ask it at once, each about rows of its own."""

    @property
    def start(self) -> Checkpoint | None:
        """The model that exists before the run; None if the teacher has no weights here.

        It is the teacher itself, or the base of a teacher that is not ready. Controls without a
        teacher start from it: the base of a ready teacher is not known, so its control starts from
        the teacher's own weights and is harder to beat.
        """
        return None

    def check_licence(self, accepted: bool) -> None:
        """Raise InputError if its terms must be accepted before it is learned from, and are not."""

    def say_licence(self) -> str:
        """Return under which terms it may be learned from, for records; empty if it has none."""
        return ""

    def estimate(self, context: LabellingContext) -> Estimate | None:
        """Return what its missing answers cost; None for a teacher that costs nothing."""
        return None

    def show(self, text: str, context: LabellingContext) -> str:
        """Return what it is asked about a text, for people; the text itself by default."""
        return text

    def try_rows(self, texts: Sequence[str], context: LabellingContext) -> list[Tried]:
        """Return how it answers some texts, rejected ones included; none if that costs nothing."""
        return []

    def open_writer(self, context: LabellingContext) -> AbstractContextManager[Writer]:
        """Return what writes texts of a class; raise InputError if it writes none."""
        raise InputError(
            f"A teacher of kind {self.kind} writes no texts. `potstill synthesize` needs a "
            "configuration with one of kind api."
        )

    @abstractmethod
    def check(self, columns: RowFormat, problem: Problem) -> tuple[str, ...] | None:
        """Return its own classes in the order of its logits; None if the data decides them.

        It is called before any row is read. Raises InputError for a teacher that cannot answer.
        """

    @abstractmethod
    def check_rows(self, corpus: Corpus, columns: RowFormat) -> list[Note]:
        """Return oddities of its answers to these rows, one note each.

        Raises InputError for rows or classes that it cannot answer.
        """

    def probe(self, context: LabellingContext) -> list[Note]:
        """Ask it about a few rows before any work, and return oddities of its answers.

        Raises InputError for a teacher that cannot be reached or answers what is no use.
        """
        return []

    @abstractmethod
    def digest(self, corpus: Corpus, seed: int, balanced: bool) -> str:
        """Return the digest of everything its answers depend on, also before it is trained."""

    def train(
        self,
        corpus: Corpus,
        folder: Path,
        *,
        seed: int,
        balanced: bool,
        progress: ProgressFile | None = None,
    ) -> Sequence[Curve]:
        """Train a teacher that is not ready into ``folder``, and return its training curve.

        ``balanced`` gives all classes the same total weight; every step is written to ``progress``.
        """
        raise NotImplementedError

    def one_epoch(self) -> tuple[Teacher, int]:
        """Return the same teacher trained for one epoch, and how often longer its own training is.

        Only of a teacher that is not ready.
        """
        raise NotImplementedError

    def identify(self, context: LabellingContext) -> str:
        """Return what else its answers depend on, which only asking it tells; empty if nothing.

        It is called once in a run, before any answer is read from the store.
        """
        return ""

    def may_lean(self, context: LabellingContext) -> bool:
        """Return whether it answers with the probabilities of a language model.

        These may lean towards some classes whatever the text says.
        """
        return False

    @property
    def rows_asked_twice(self) -> int:
        """How many rows it is asked twice, to see how often it agrees with itself; 0 if always."""
        return 0

    def answer_again(
        self, texts: Sequence[str], context: LabellingContext
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return what it says when asked anew: row numbers (rows,) and logits (rows, classes).

        Only of a teacher with `rows_asked_twice`. A later call with the same texts may return what
        was answered then.
        """
        raise NotImplementedError

    @abstractmethod
    def answers(self, texts: Sequence[str], context: LabellingContext) -> Batches:
        """Return its answers to texts of the corpus, in batches of any order.

        Rows that it cannot answer are left out.
        """


class LocalTeacher(Teacher):
    """A teacher with weights on this machine, from which students can start; it can be timed."""

    in_shards = True

    @property
    @abstractmethod
    def start(self) -> Checkpoint:
        """The teacher itself if it is ready, else its base."""

    def answers(self, texts: Sequence[str], context: LabellingContext) -> Batches:
        """Return the answers of its weights, shortest texts first."""
        weights = context.weights
        assert weights is not None  # it has some
        classifier = SequenceClassifier(weights.model, weights.max_length, weights.revision)
        logger.info("label: %s", classifier.device.reason)
        return classifier.answer(texts)


def join_identity(teacher: str, identity: str) -> str:
    """Return the digest under which a teacher's answers are kept.

    It joins the digest of its settings with what `Teacher.identify` returned.
    """
    return digest(teacher, identity) if identity else teacher
