"""Teacher kind ``api``: a language model behind any endpoint that speaks OpenAI's protocol."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import InputError
from distill_tasks.llm.assignments import WriterPromptConfig
from distill_tasks.llm.codes import choose_codes
from distill_tasks.llm.orders import DIGESTED, Orders
from distill_tasks.llm.prompt import cut_middle
from distill_tasks.teachers.base import Teacher, Tried
from distill_tasks.teachers.terms import Licence, Prices, find_price, read_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from distill_tasks.core.notes import Note
    from distill_tasks.data.corpus import Corpus
    from distill_tasks.data.settings import RowFormat
    from distill_tasks.llm.client import Address
    from distill_tasks.llm.estimate import Estimate
    from distill_tasks.llm.labelling import Answer, Way
    from distill_tasks.llm.ledger import Ledger
    from distill_tasks.llm.prompt import Prompt
    from distill_tasks.llm.session import Session
    from distill_tasks.llm.writing import Writer
    from distill_tasks.problems.classification import Problem
    from distill_tasks.teachers.base import Batches, LabellingContext

logger = logging.getLogger("potstill")

MOST_STATED = 52
"""Classes for which a confidence each is stated in one answer."""
ASKED_TWICE = "twice"
"""The name of the second answers in the ledger."""


class ApiTeacher(Teacher):
    """A language model behind an OpenAI-compatible endpoint, asked once about each row."""

    kind: Literal["api"] = Field("api", description="The kind of teacher.")
    base_url: str = Field(
        pattern=r"^https?://\S+$", description="Address of the endpoint, as `https://host/v1`."
    )
    model: str = Field(min_length=1, description="The model's name there; name a fixed version.")
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        pattern=r"^[A-Za-z_]\w*$",
        description="Environment variable with the key. The key itself never stands in a "
        "configuration; a Prefect worker sets the variable from a Secret block.",
    )
    licence: Licence = Field(description="The terms under which it may be learned from.")
    prompt: WriterPromptConfig = Field(WriterPromptConfig(), description="What it is told.")
    method: Literal["auto", "token_logprobs", "top_logprobs", "votes", "verbalised"] = Field(
        "auto",
        description="How soft labels are got. `auto` takes the first of log-probabilities of given "
        "tokens, the most likely tokens, and votes that really works; `verbalised` asks for stated "
        "confidences, which take few distinct values.",
    )
    order: Orders = "both"
    samples: int = Field(5, ge=2, le=100, description="Votes for each row and order.")
    answer_tokens: PositiveInt = Field(
        8, description="Tokens of a vote at most; models that think before they answer need more."
    )
    max_characters: int = Field(
        8_000, ge=100, description="Characters of the longest text that is asked about whole."
    )
    too_long: Literal["cut", "refuse"] = Field(
        "cut",
        description="Longer texts lose their middle, or are refused before anything is asked.",
    )
    batch: bool = Field(
        False,
        description="Whether rows are sent in files through the endpoint's batch API: often at "
        "half the price, answered within a day.",
    )
    concurrency: int = Field(32, ge=1, le=100, description="Requests on their way at once.")
    requests_per_minute: PositiveInt | None = Field(None, description="Rate limit.")
    tokens_per_minute: PositiveInt | None = Field(None, description="Rate limit, by estimate.")
    timeout_s: PositiveFloat = Field(60.0, description="Seconds to wait for one answer.")
    prices: Prices | None = Field(None, description="Needed for estimates and `max_spend`.")
    max_spend: PositiveFloat | None = Field(
        None,
        description="What this model may cost in this work_dir, in all runs together: each request "
        "is reserved at its highest price first.",
    )
    max_requests: PositiveInt | None = Field(
        None, description="Requests to this model in this work_dir, in all runs together."
    )
    min_success_ratio: float = Field(
        0.9, ge=0, le=1, description="Share of rows that must be answered; fewer end the run early."
    )
    self_agreement_rows: int = Field(
        200,
        ge=0,
        le=5000,
        description="Training rows that are asked a second time, to see how often it agrees with "
        "itself; 0 asks none. They cost as much as others.",
    )
    on_change: Literal["stop", "ask_again"] = Field(
        "stop",
        description="What to do when it answers rows differently than in an earlier run: its "
        "answers are never mixed.",
    )

    @model_validator(mode="after")
    def _check_prices(self) -> Self:
        if self.max_spend is not None and self.prices is None:
            raise ValueError("max_spend needs `prices`: what a million tokens cost")
        return self

    def check(self, columns: RowFormat, problem: Problem) -> None:
        """Raise InputError for a problem, key, template or licence with which it is not asked."""
        if problem != "single_label":
            raise InputError(
                "Teacher kind api answers with one class for each text; the configuration says "
                "`problem: multi_label`. Use saved answers, or a callable."
            )
        if self.licence.may_train == "no":
            raise InputError(
                f"teacher.licence {self.licence.name} says may_train: no, so nothing may be "
                f"distilled from {self.model}. Use a model whose terms allow it."
            )
        read_key(self.api_key_env, self.base_url)
        self.prompt.read_template()
        _check_sdk()

    def check_rows(self, corpus: Corpus, columns: RowFormat) -> list[Note]:
        """Return how many texts are cut; raise InputError for classes or texts it cannot take."""
        from distill_tasks.core.notes import Note, Rank

        if self.method == "verbalised" and len(corpus.classes) > MOST_STATED:
            raise InputError(
                f"teacher.method verbalised states a confidence for {MOST_STATED} classes at most; "
                f"the data has {len(corpus.classes)}. Set teacher.method: auto, or votes."
            )
        self._make_prompt(corpus)
        long = sum(len(text) > self.max_characters for text in corpus.texts)
        if not long:
            return []
        about = f"{long:,} texts are longer than teacher.max_characters ({self.max_characters:,})"
        if self.too_long == "refuse":
            raise InputError(f"{about}. Raise it, shorten them, or set teacher.too_long: cut.")
        return [Note(Rank.KNOW, f"{about} and are asked about without their middle")]

    def digest(self, corpus: Corpus, seed: int, balanced: bool) -> str:
        """Return the digest of endpoint, model, prompt and way of asking."""
        from distill_tasks.llm.labelling import READING_VERSION

        order, votes = DIGESTED[self.order], [self.samples, self.answer_tokens]
        how = [READING_VERSION, self.method, order, *votes]
        long = [self.max_characters, self.too_long]
        return digest(self.kind, *self._place, self._make_prompt(corpus).digest, *how, *long)

    def check_licence(self, accepted: bool) -> None:
        """Raise InputError unless a licence that must be accepted is."""
        if self.licence.may_train == "ask" and not accepted:
            raise InputError(
                f"teacher.licence {self.licence.name} ({self.licence.url}) says may_train: ask. "
                "Read it, then say --accept-licence (in a deployment the parameter accept_licence)."
            )

    def say_licence(self) -> str:
        """Return the name and address of the terms, and what they say."""
        licence = self.licence
        return f"{licence.name} ({licence.url}), may train: {licence.may_train}"

    def probe(self, context: LabellingContext) -> list[Note]:
        """Raise InputError unless the endpoint can be reached, where rows are not answered yet."""
        with self._session(context) as session:
            if session.find_missing(self._cut(context.texts)):
                session.reach()
        return []

    def estimate(self, context: LabellingContext) -> Estimate:
        """Return what the answers cost that are not in the ledger, those for the audit included."""
        training = list(dict.fromkeys(self._cut(context.training_texts)))
        wanted = min(self.self_agreement_rows, len(training))
        with self._session(context) as session:
            once = session.find_missing(training, ASKED_TWICE)
            due = max(0, wanted - (len(training) - len(once)))
            return session.estimate(self._cut(context.texts), once[:due])

    def show(self, text: str, context: LabellingContext) -> str:
        """Return the messages of a request about a text."""
        return self._make_prompt(context.corpus).show(cut_middle(text, self.max_characters))

    def try_rows(self, texts: Sequence[str], context: LabellingContext) -> list[Tried]:
        """Return how it answers some texts, with what it said where that is no answer."""
        from distill_tasks.llm.labelling import Rejected

        classes, tried = context.corpus.classes, {}
        with self._session(context, trial=True) as session:
            session.identify(self._cut(context.texts))
            for number, found in session.label(self._cut(texts)):
                if isinstance(found, Rejected):
                    said = f"{found.reason}: {found.replied!r}" if found.replied else found.reason
                    tried[number] = Tried(texts[number], said, answered=False)
                else:
                    said = f"{classes[found.best]} {np.exp(found.log_probabilities.max()):.2f}"
                    tried[number] = Tried(texts[number], said, answered=True)
        return [tried[number] for number in sorted(tried)]

    def identify(self, context: LabellingContext) -> str:
        """Return the model that the endpoint says it serves, and how often it has changed."""
        with self._session(context) as session:
            return session.identify(self._cut(context.texts)).name

    def answers(self, texts: Sequence[str], context: LabellingContext) -> Batches:
        """Return its answers as they come; every reply is in the ledger first."""
        from distill_tasks.llm.labelling import to_batch

        with self._session(context) as session:
            for found in session.label(self._cut(texts)):
                yield to_batch([found], len(context.corpus.classes))

    def may_lean(self, context: LabellingContext) -> bool:
        """Return whether it gives log-probabilities, no votes or stated confidences."""
        with self._session(context) as session:
            return session.way.method in ("token_logprobs", "top_logprobs")

    @property
    def rows_asked_twice(self) -> int:
        """How many rows it is asked twice."""
        return self.self_agreement_rows

    def answer_again(
        self, texts: Sequence[str], context: LabellingContext
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return its second answers, from requests in the ledger where there are some.

        Where the budget does not hold them, there are none, and the log says so.
        """
        from distill_tasks.llm.labelling import to_batch
        from distill_tasks.llm.ledger import OutOfBudgetError

        again: list[Answer] = []
        with self._session(context) as session:
            try:
                again = session.ask_again(self._cut(texts), ASKED_TWICE)
            except OutOfBudgetError as error:
                logger.warning("audit: the teacher was not asked twice: %s", error)
        rows, logits, _ = to_batch(enumerate(again), len(context.corpus.classes))
        return rows, logits

    @contextmanager
    def open_writer(self, context: LabellingContext) -> Iterator[Writer]:
        """Open the ledger, and what asks for texts and keeps the replies in it."""
        from distill_tasks.llm.writing import Writer

        assigner = self.prompt.make_assigner(
            context.corpus,
            seed=0,
            most_characters=self.max_characters,
            spare_tokens=self.answer_tokens,
        )
        with self._ledger(context) as ledger:
            yield Writer(self._address, ledger, assigner)

    @contextmanager
    def _session(self, context: LabellingContext, *, trial: bool = False) -> Iterator[Session]:
        """Open the ledger, and a session that writes in it.

        A trial waits for no batch, and goes on however many rows are rejected.
        """
        from distill_tasks.llm.session import Session

        with self._ledger(context) as ledger:
            yield Session(
                replace(self._address, batch_price=None) if trial else self._address,
                ledger,
                self._make_prompt(context.corpus),
                key=self.digest(context.corpus, 0, balanced=False),
                wanted=self._way,
                method=None if self.method == "auto" else self.method,
                order=self.order,
                on_change=self.on_change,
                min_success_ratio=0.0 if trial else self.min_success_ratio,
            )

    @contextmanager
    def _ledger(self, context: LabellingContext) -> Iterator[Ledger]:
        """Open the ledger of this endpoint in the store."""
        from distill_tasks.llm.ledger import Ledger, Limits

        file = Path(context.store.root, "replies", f"{digest(*self._place)}.sqlite")
        with closing(Ledger(file, Limits(self.max_spend, self.max_requests))) as ledger:
            yield ledger

    @property
    def _place(self) -> tuple[str, str]:
        return self.base_url.rstrip("/"), self.model

    @property
    def _way(self) -> Way:
        from distill_tasks.llm.labelling import Way

        return Way("votes", samples=self.samples, answer_tokens=self.answer_tokens)

    @property
    def _address(self) -> Address:
        from distill_tasks.llm.client import Address

        return Address(
            base_url=self.base_url,
            model=self.model,
            key=read_key(self.api_key_env, self.base_url),
            price=find_price(self.prices),
            batch_price=find_price(self.prices, in_batch=True) if self.batch else None,
            timeout_s=self.timeout_s,
            concurrency=self.concurrency,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
        )

    def _make_prompt(self, corpus: Corpus) -> Prompt:
        wanted: Literal["code", "confidence"]
        wanted = "confidence" if self.method == "verbalised" else "code"
        return self.prompt.make(corpus, choose_codes(len(corpus.classes)), 0, wanted)

    def _cut(self, texts: Sequence[str]) -> list[str]:
        return [cut_middle(text, self.max_characters) for text in texts]


def _check_sdk() -> None:
    import importlib.util

    if importlib.util.find_spec("openai") is None:
        raise InputError("Teacher kind api needs the extra `llm`: pip install potstill[llm].")
