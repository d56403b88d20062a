"""The ledger of an endpoint: every reply it gave and what it cost, kept before the next is asked.

It is one SQLite file for each endpoint and model, so that several processes reserve and settle in
it at once, and a kill loses only the calls that are on their way.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import InputError, PotstillError

logger = logging.getLogger("potstill")

SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY,
    request TEXT NOT NULL,
    reserved REAL NOT NULL,
    cost REAL,
    seconds REAL,
    reply TEXT,
    seal TEXT
);
CREATE INDEX IF NOT EXISTS by_request ON calls (request);
CREATE TABLE IF NOT EXISTS totals (
    one INTEGER PRIMARY KEY CHECK (one = 1), committed REAL NOT NULL, calls INTEGER NOT NULL
);
INSERT OR IGNORE INTO totals VALUES (1, 0, 0);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    file TEXT,
    name TEXT,
    ended INTEGER NOT NULL DEFAULT 0
);
"""
USUAL = """
SELECT avg(json_extract(reply, '$.usage.prompt_tokens')),
    avg(json_extract(reply, '$.usage.completion_tokens')), avg(seconds), avg(cost)
FROM calls WHERE json_extract(reply, '$.usage.prompt_tokens') IS NOT NULL
AND (request LIKE 'texts-%') = ?
"""
WRITING = "texts-"
"""How the name of a request begins that asks for texts, which takes more than one for a label."""
SUMS = """
SELECT committed, (SELECT total(coalesce(cost, reserved)) FROM calls) FROM totals
"""
ROUNDING = 1e-6
"""What adding many prices may lose, as a share."""
LONGEST_WAIT_S = 60
"""How long one process waits while another one writes."""


@dataclass(frozen=True)
class Limits:
    """What an endpoint may cost in all runs together."""

    spend: float | None = None
    """In the currency of the prices."""
    calls: int | None = None


@dataclass(frozen=True)
class Spent:
    """What an endpoint has cost so far."""

    committed: float
    """The actual price of what was answered, and the highest possible one of what was not."""
    calls: int
    answered: int


@dataclass(frozen=True)
class Usual:
    """Means over the calls that were answered."""

    prompt_tokens: float
    completion_tokens: float
    seconds: float
    cost: float


@dataclass(frozen=True)
class Batch:
    """Calls that an endpoint is asked together, numbered without a gap."""

    number: int
    first: int
    last: int
    file: str | None = None
    """What the endpoint calls the file with its requests; None before that was sent."""
    name: str | None = None
    """What the endpoint calls the batch; None before that was told."""

    def __len__(self) -> int:
        return self.last - self.first + 1


class OutOfBudgetError(PotstillError):
    """The next call could cost more than is left."""


class Ledger:
    """Replies of one endpoint and model, and what they cost; safe across threads and processes."""

    def __init__(self, path: Path, limits: Limits = Limits()) -> None:
        """Open the file, or make it. Raises InputError if it is damaged."""
        self.path, self.limits = path, limits
        self._alone = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open()
        except (sqlite3.DatabaseError, TypeError) as error:
            raise self._refuse(error) from None

    def _open(self) -> None:
        self._connection = sqlite3.connect(
            self.path, timeout=LONGEST_WAIT_S, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(SCHEMA)
        (whole,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if whole != "ok":
            raise sqlite3.DatabaseError(whole)
        committed, listed = self._connection.execute(SUMS).fetchone()
        if abs(committed - listed) > ROUNDING * max(1.0, committed):
            raise sqlite3.DatabaseError("its total differs from its calls")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def reserve(self, request: str, worst: float) -> int:
        """Reserve the highest price of a call and return the call's number.

        Raises OutOfBudgetError if it, or one more call, is more than the limits leave.
        """
        with self._transaction() as execute:
            return self._reserve(execute, request, worst)

    def reserve_batch(self, requests: Sequence[tuple[str, float]]) -> Batch:
        """Reserve the highest prices of as many calls as the limits leave, in their order.

        Each is a request with its price. Raises OutOfBudgetError if they do not leave one.
        """
        with self._transaction() as execute:
            first = last = self._reserve(execute, *requests[0])
            with suppress(OutOfBudgetError):
                for one in requests[1:]:
                    last = self._reserve(execute, *one)
            made = execute("INSERT INTO batches (first, last) VALUES (?, ?)", (first, last))
            return Batch(int(made.lastrowid), first, last)

    def note_batch(self, batch: Batch) -> None:
        """Keep what the endpoint calls a batch and its file."""
        with self._transaction() as execute:
            execute(
                "UPDATE batches SET file = ?, name = ? WHERE number = ?",
                (batch.file, batch.name, batch.number),
            )

    def end_batch(self, batch: Batch) -> None:
        """Keep that a batch has ended, and all that came of it is in the ledger."""
        with self._transaction() as execute:
            execute("UPDATE batches SET ended = 1 WHERE number = ?", (batch.number,))

    def open_batches(self) -> list[Batch]:
        """Return the batches that have not ended, the first one first."""
        with self._read() as execute:
            found = execute(
                "SELECT number, first, last, file, name FROM batches WHERE NOT ended "
                "ORDER BY number"
            )
            return [Batch(*row) for row in found]

    def list_due(self, batch: Batch) -> dict[int, float]:
        """Return the calls of a batch that are not settled, with what is reserved for each."""
        with self._read() as execute:
            found = execute(
                "SELECT id, reserved FROM calls WHERE id BETWEEN ? AND ? AND cost IS NULL",
                (batch.first, batch.last),
            )
            return dict(found)

    def settle(
        self, call: int, cost: float, reply: dict[str, Any], seconds: float | None = None
    ) -> None:
        """Keep the reply to a call, with its actual price in place of the reserved one."""
        with self._transaction() as execute:
            execute(
                "UPDATE totals SET committed = committed + :cost - "
                "(SELECT coalesce(cost, reserved) FROM calls WHERE id = :call)",
                {"cost": cost, "call": call},
            )
            written = json.dumps(reply, ensure_ascii=False)
            execute(
                "UPDATE calls SET cost = ?, seconds = ?, reply = ?, seal = ? WHERE id = ?",
                (cost, seconds, written, digest(written), call),
            )

    def release(self, call: int) -> None:
        """Give back what was reserved for a call that the endpoint surely did not answer."""
        with self._transaction() as execute:
            execute(
                "UPDATE totals SET calls = calls - 1, committed = committed - "
                "(SELECT reserved FROM calls WHERE id = :call)",
                {"call": call},
            )
            execute("UPDATE calls SET cost = 0 WHERE id = ?", (call,))

    def replies(self, request: str) -> list[dict[str, Any]]:
        """Return the replies to a request, the first one first.

        One that is no longer as it was written is reported in the log and counts as not given.
        """
        with self._read() as execute:
            found = execute(
                "SELECT reply, seal FROM calls WHERE request = ? AND reply IS NOT NULL ORDER BY id",
                (request,),
            ).fetchall()
        whole = [reply for reply, seal in found if digest(reply) == seal]
        if len(whole) < len(found):
            logger.warning("label: a reply in %s is damaged; that row is asked again", self.path)
        return [json.loads(reply) for reply in whole]

    def list_requests(self) -> set[str]:
        """Return the requests that have been replied to."""
        with self._read() as execute:
            found = execute("SELECT request FROM calls WHERE reply IS NOT NULL")
            return {request for (request,) in found}

    def spent(self) -> Spent:
        """Return what was spent."""
        with self._read() as execute:
            committed, calls = execute("SELECT committed, calls FROM totals").fetchone()
            (answered,) = execute("SELECT count(reply) FROM calls").fetchone()
        return Spent(max(committed, 0.0), calls, answered)

    def usual(self, *, writing: bool = False) -> Usual | None:
        """Return what a call for a label, or for texts, usually takes.

        None before the first reply that counts its tokens.
        """
        with self._read() as execute:
            found = execute(USUAL, (writing,)).fetchone()
        return None if None in found else Usual(*found)

    def remember(self, name: str, value: Any) -> None:
        """Keep a fact about the endpoint, as plain data."""
        with self._transaction() as execute:
            execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def recall(self, name: str) -> Any:
        """Return a fact about the endpoint; None if it is not known."""
        with self._read() as execute:
            found = execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def _reserve(self, execute: Any, request: str, worst: float) -> int:
        spend, calls = self.limits.spend, self.limits.calls
        found = execute(
            "UPDATE totals SET committed = committed + :worst, calls = calls + 1 WHERE "
            "(:spend IS NULL OR committed + :worst <= :spend) AND "
            "(:calls IS NULL OR calls < :calls)",
            {"worst": worst, "spend": spend, "calls": calls},
        )
        if found.rowcount == 0:
            raise OutOfBudgetError(self._say_what_is_left(worst))
        made = execute("INSERT INTO calls (request, reserved) VALUES (?, ?)", (request, worst))
        return int(made.lastrowid)

    @contextmanager
    def _read(self) -> Iterator[Any]:
        """Let no other thread write inside a block."""
        with self._alone:
            try:
                yield self._connection.execute
            except sqlite3.DatabaseError as error:
                raise self._refuse(error) from None

    def _refuse(self, error: Exception) -> InputError:
        reason = " ".join(str(error).split())
        return InputError(
            f"{self.path}, the record of what this teacher answered and cost, cannot be read "
            f"({reason}). Move it away to begin anew: what was spent is then forgotten."
        )

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Let all of a block be written, or none of it."""
        with self._alone:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _say_what_is_left(self, worst: float) -> str:
        committed, calls = self._connection.execute(
            "SELECT committed, calls FROM totals"
        ).fetchone()
        if self.limits.calls is not None and calls >= self.limits.calls:
            return f"teacher.max_requests ({self.limits.calls:,}) is reached"
        return (
            f"teacher.max_spend is {self.limits.spend:g}, {committed:.4f} of it is spent, and the "
            f"next call may cost {worst:.6f}"
        )


@dataclass(frozen=True)
class Price:
    """Prices for a million tokens, in the user's currency."""

    input: float = 0.0
    output: float = 0.0

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the price of one call."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1_000_000


FREE = Price()


def most_tokens(contents: Sequence[str]) -> int:
    """Return the most tokens that a chat can be: one for each byte, and its frame."""
    return sum(len(content.encode()) + TOKENS_AROUND for content in contents)


TOKENS_AROUND = 64
"""Tokens at most that a chat template writes around one message."""
