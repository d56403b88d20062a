"""Teacher kind ``causal_lm``: a language model that scores labels on this machine, no server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import InputError
from distill_tasks.core.notes import Note, Rank
from distill_tasks.llm.local_model import LocalModel
from distill_tasks.llm.orders import Orders, list_rotations
from distill_tasks.llm.prompt import Prompt, PromptConfig
from distill_tasks.teachers.base import Teacher
from distill_tasks.training.device import choose_device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from distill_tasks.data.corpus import Corpus
    from distill_tasks.data.settings import RowFormat
    from distill_tasks.llm.orders import Order
    from distill_tasks.llm.questions import Questions
    from distill_tasks.llm.scoring import LabelScores
    from distill_tasks.problems.classification import Problem
    from distill_tasks.teachers.base import Batches, LabellingContext

    Score = Callable[[Sequence[str], Order], LabelScores]
    """Scores texts with the classes listed in one order."""

logger = logging.getLogger("potstill")

CODE_VERSION = 1
"""Raised when a change of the code changes the answers."""
EXAMPLES_SEED = 0
"""The examples are the same whatever seed the students have, so that answers are kept."""
GROUP_ROWS = 64
"""Texts of similar length that are asked together, and then kept."""
KEPT_ORDERS = 16
"""Orders of classes whose prompts' beginnings are held in memory."""
MUCH_OFF_LABELS = 0.5
"""From this share on, what the model would rather say than a label is worth a warning."""


class CausalLmTeacher(Teacher):
    """A causal language model that reads each text once and scores every class's label."""

    kind: Literal["causal_lm"] = Field("causal_lm", description="The kind of teacher.")
    model: str = Field(
        description="Local folder, GGUF file (`model.gguf`) or hub id of a causal language model."
    )
    revision: str | None = Field(
        None, description="Commit of the hub model; required for hub ids, absent for local ones."
    )
    max_length: int = Field(
        2048, ge=32, description="Tokens of a whole prompt: instructions, classes, examples, text."
    )
    too_long: Literal["cut", "refuse"] = Field(
        "cut",
        description="What happens to a text that does not fit: its middle is left out, or the run "
        "is refused before it starts.",
    )
    labels: Literal["codes", "names"] = Field(
        "codes",
        description="What is scored: codes of one token each, or the names of the classes.",
    )
    order: Orders = "both"
    prompt: PromptConfig = Field(PromptConfig(), description="What the model is told.")

    @property
    def local(self) -> LocalModel:
        """The model, not loaded."""
        return LocalModel(self.model, self.revision)

    def check(self, columns: RowFormat, problem: Problem) -> None:
        """Return None, because the data has the classes.

        Raises InputError for several labels, for what is no causal language model, for prompts
        longer than it reads, and for a wrong template.
        """
        if problem == "multi_label":
            raise InputError(
                "teacher.kind causal_lm gives one label to a text, and `problem: multi_label` "
                "wants several. Use a teacher of kind saved or transformers."
            )
        most = getattr(self.local.read_config(), "max_position_embeddings", None)
        if most is not None and self.max_length > most:
            raise InputError(
                f"teacher.max_length is {self.max_length:,}, and {self.model} reads {most:,} "
                f"tokens at most. Set max_length: {most} or less."
            )
        self.prompt.read_template()

    def check_rows(self, corpus: Corpus, columns: RowFormat) -> list[Note]:
        """Return how many texts are cut, and whether the model was made for chats.

        Raises InputError for classes without labels, a prompt that leaves no room for a text, and
        for long texts where they are to be refused.
        """
        questions = self._make_questions(corpus)
        texts = corpus.texts
        long = questions.count_long(texts)
        if long and self.too_long == "refuse":
            raise InputError(
                f"{long:,} of {len(texts):,} texts do not fit into teacher.max_length "
                f"{self.max_length:,}. Raise it, or set `too_long: cut`."
            )
        notes = []
        if long:
            share = f"{long:,} of {len(texts):,} texts"
            about = f"the teacher reads {share} without their middle: they have too many tokens"
            notes.append(Note(Rank.KNOW, about))
        if not questions.chat.has_template:
            about = f"{self.model} has no chat template, so it reads the prompt as plain text"
            notes.append(Note(Rank.KNOW, about))
        return notes

    def digest(self, corpus: Corpus, seed: int, balanced: bool) -> str:
        """Return the digest of its model, its prompt and of how it is asked."""
        how = self.max_length, self.labels, self.order
        return digest(
            self.kind, CODE_VERSION, self.local.digest(), self._draft(corpus).digest, *how
        )

    def show(self, text: str, context: LabellingContext) -> str:
        """Return the prompt of a text as the model reads it, the classes in the data's order."""
        questions = self._make_questions(context.corpus)
        order = tuple(range(len(context.corpus.classes)))
        return questions.chat.render(questions.prompt.messages(text, order))

    def may_lean(self, context: LabellingContext) -> bool:
        """Return that it does."""
        return True

    def answers(self, texts: Sequence[str], context: LabellingContext) -> Batches:
        """Return log-probabilities as its logits, the longest texts first."""
        logger.info("label: %s", choose_device().reason)
        score = self._open(context.corpus)
        by_length = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        off_labels = 0.0
        for start in range(0, len(texts), GROUP_ROWS):
            rows = np.array(by_length[start : start + GROUP_ROWS])
            logits, off = self._ask([texts[row] for row in rows], score, context.corpus)
            off_labels += off.sum() / len(texts)
            yield rows, logits
        level = logging.WARNING if off_labels >= MUCH_OFF_LABELS else logging.INFO
        logger.log(
            level,
            "label: on average %.0f %% of the probability lay on what begins no label",
            100 * off_labels,
        )

    def _ask(
        self, texts: Sequence[str], score: Score, corpus: Corpus
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return log-probabilities (rows, classes) and the mass off the labels (rows,)."""
        forward: Order = tuple(range(len(corpus.classes)))
        first = score(texts, forward)
        if self.order == "one":
            return first.log_probabilities, first.off_labels
        second = score(texts, forward[::-1])
        off_labels = np.mean([first.off_labels, second.off_labels], axis=0)
        averaged = average([first.log_probabilities, second.log_probabilities])
        split = _find_split(first.log_probabilities, second.log_probabilities)
        if self.order == "rotate" and len(split):
            doubtful = [texts[row] for row in split]
            turned = [
                score(doubtful, order).log_probabilities for order in list_rotations(forward)[1:]
            ]
            averaged[split] = average([first.log_probabilities[split], *turned])
        return averaged, off_labels

    def _open(self, corpus: Corpus) -> Score:
        """Load the model, once for all texts and orders."""
        from distill_tasks.llm.scoring import LabelScorer

        questions, model = self._make_questions(corpus), self.local.open()

        @lru_cache(KEPT_ORDERS)
        def open_order(order: Order) -> LabelScorer:
            return LabelScorer(model, questions.encode_labels(order), questions.end)

        return lambda texts, order: open_order(order).score(questions.encode(texts, order))

    def _make_questions(self, corpus: Corpus) -> Questions:
        from distill_tasks.llm.chat import ChatTokenizer
        from distill_tasks.llm.questions import Questions, choose_token_codes

        chat, prompt = ChatTokenizer(self.local.open_tokenizer()), self._draft(corpus)
        if self.labels == "codes":
            prompt = replace(prompt, codes=choose_token_codes(chat, prompt))
        return Questions(chat, prompt, self.max_length)

    def _draft(self, corpus: Corpus) -> Prompt:
        """Return the prompt with numbers for codes, which only the tokenizer can choose."""
        numbers = [str(number) for number in range(len(corpus.classes))]
        wanted: Literal["code", "name"] = "code" if self.labels == "codes" else "name"
        return self.prompt.make(corpus, numbers, EXAMPLES_SEED, wanted)


def average(log_probabilities: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the logarithm (rows, classes) of the mean probability over orders of the classes."""
    total: NDArray[np.float64] = np.logaddexp.reduce(log_probabilities, axis=0, dtype=np.float64)
    averaged: NDArray[np.float32] = (total - np.log(len(log_probabilities))).astype(np.float32)
    return averaged


def _find_split(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the rows whose likeliest class differs."""
    rows: NDArray[np.int64] = np.flatnonzero(one.argmax(axis=1) != other.argmax(axis=1))
    return rows
