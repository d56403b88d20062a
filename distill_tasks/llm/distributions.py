"""Distributions over classes: what a language model's reply says of every class.

Each function reads one kind of reply, or raises `UnusableError` for one that says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from distill_tasks.core.errors import PotstillError

FLOOR = 1e-9
"""Least probability of a class of which no more is known, so that its logarithm is finite."""
FILLER = -700.0
"""Log-probabilities up to this (−inf, −9999) fill a server's list; they measure nothing."""
ROUNDING = 0.02
"""How far above one listed probabilities may add up: servers round them to 16 bits."""
STATED_SUM = 0.1
"""How far from one stated confidences may add up."""
STATED_FLOOR = 0.01
"""What a stated confidence of zero may mean: all classes of a reply together, so much."""

Reason = Literal["empty", "zeros", "not_probabilities", "off_list"]
"""Why a reply is unusable: it holds no numbers; zeros, from a server that computes none; numbers
that are no probabilities; or answers that are no class."""


class UnusableError(PotstillError):
    """A reply that says nothing of the classes."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Distribution:
    """How likely every class is, by one reply or by several."""

    log_probabilities: NDArray[np.float64]
    """(classes,), all finite; their exponentials sum to one."""
    censored: float = 0.0
    """Probability, of all answers, that the classes may share of which the reply says nothing."""
    off_list: float = 0.0
    """Probability of answers that are no class, as far as it is known."""
    standard_error: NDArray[np.float64] | None = None
    """(classes,) that of every probability; None where nothing was drawn."""

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The probability of every class (classes,)."""
        values: NDArray[np.float64] = np.exp(self.log_probabilities)
        return values

    @property
    def best(self) -> int:
        """The number of the likeliest class."""
        return int(self.log_probabilities.argmax())

    def place(self, order: Sequence[int]) -> Distribution:
        """Return the same over classes, where this one is over places of a list in some order."""
        where = np.argsort(order)
        errors = None if self.standard_error is None else self.standard_error[where]
        return replace(self, log_probabilities=self.log_probabilities[where], standard_error=errors)


def from_top_logprobs(listed: Sequence[tuple[str, float]], codes: Sequence[str]) -> Distribution:
    """Return the distribution of the likeliest tokens of an answer, each with its log-probability.

    A token means the code of a class if it is equal but for white space around it; several that
    mean one code are summed. Classes that are not listed are censored: they share what the listed
    tokens leave, see `continue_tail`, none with more than the least likely of these.
    Raises UnusableError if no token is a code, or the numbers are no log-probabilities.
    """
    tokens = _read_tokens(listed)
    numbers = {code: number for number, code in enumerate(codes)}
    if len(numbers) != len(codes):
        raise ValueError("every class needs a code of its own")
    masses, off_list = np.zeros(len(codes)), 0.0
    for text, mass in tokens:
        number = numbers.get(text.strip())
        if number is None:
            off_list += mass
        else:
            masses[number] += mass
    if not masses.any():
        text, mass = max(tokens, key=lambda token: token[1])
        raise UnusableError(
            "off_list",
            f"none of {len(tokens)} tokens is the code of a class; the likeliest is {text!r} "
            f"({mass:.2f})",
        )
    left = 1 - masses.sum() - off_list
    return _share(masses, left, min(mass for _, mass in tokens))


def from_votes(
    counts: Sequence[int] | NDArray[np.integer], invalid: int, samples: int
) -> Distribution:
    """Return the distribution of votes: how often each class (classes,) was answered.

    Dirichlet smoothing adds one vote in all, 1 / classes for each class (Perks 1947): with as much
    as Jeffreys' half for each, 50 classes would outvote five samples five times. Invalid answers
    stay in the denominator: they say nothing, and are shared alike by the classes.
    The standard error is √(p (1 − p) / samples) of the smoothed p.
    Raises UnusableError without a valid answer.
    """
    votes = np.asarray(counts, np.float64)
    if votes.min(initial=0) < 0 or votes.sum() + invalid != samples:
        raise ValueError(f"{votes.sum():.0f} votes and {invalid} invalid ones are not {samples}")
    if not samples:
        raise UnusableError("empty", "there is no answer")
    if invalid == samples:
        raise UnusableError("off_list", f"none of {samples} answers is a class")
    shares = (votes + (1 + invalid) / len(votes)) / (samples + 1)
    errors = np.sqrt(shares * (1 - shares) / samples)
    return Distribution(np.log(shares), 0.0, invalid / samples, errors)


def from_stated(stated: Mapping[str, float], classes: Sequence[str]) -> Distribution:
    """Return the distribution of the confidence that an answer states for each class.

    Classes with zero, or that it leaves out, count as no better than rounded: they get a floor.
    Raises UnusableError if no class is named, or the numbers do not sum to about one.
    """
    values = np.array([*stated.values()], np.float64)
    total = float(values.sum())
    if not len(values):
        raise UnusableError("empty", "no confidence is stated")
    if not ((values >= 0) & (values <= 1 + STATED_SUM)).all() or abs(total - 1) > STATED_SUM:
        raise UnusableError(
            "not_probabilities", f"the stated confidences sum to {total:g}, not one: {dict(stated)}"
        )
    masses = np.array([stated.get(name, 0.0) for name in classes]) / total
    if not masses.any():
        raise UnusableError("off_list", f"none of the stated names is a class: {', '.join(stated)}")
    raised = np.maximum(masses, STATED_FLOOR / len(classes))
    unsaid = np.array([name not in stated for name in classes])
    return Distribution(
        np.log(raised / raised.sum()),
        float(raised[unsaid].sum()),
        max(0.0, 1 - float(masses.sum())),
    )


def average_orders(replies: Sequence[Distribution]) -> Distribution:
    """Return the mean of the probabilities over several orders of the options."""
    mean = np.mean([reply.probabilities for reply in replies], axis=0)
    errors = [reply.standard_error for reply in replies if reply.standard_error is not None]
    return Distribution(
        np.log(mean),
        float(np.mean([reply.censored for reply in replies])),
        float(np.mean([reply.off_list for reply in replies])),
        np.sqrt(np.square(errors).sum(axis=0)) / len(replies) if errors else None,
    )


def disagree(one: Distribution, other: Distribution) -> bool:
    """Return whether two replies put different classes first."""
    return one.best != other.best


def _read_tokens(listed: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Return tokens with their probabilities, without fillers.

    One that is listed twice with the same number is one token; with two numbers it is two tokens
    that read alike, such as parts of a character.
    """
    distinct = list(dict.fromkeys((text, float(value)) for text, value in listed))
    if not distinct:
        raise UnusableError("empty", "no log-probabilities are listed")
    masses = _to_masses(np.array([value for _, value in distinct]))
    tokens = [(text, float(mass)) for (text, _), mass in zip(distinct, masses, strict=True) if mass]
    if not tokens:
        raise UnusableError("empty", f"all of {len(distinct)} log-probabilities are fillers")
    return tokens


def _to_masses(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-probabilities as probabilities that sum to one at most; those of fillers are 0."""
    if not logs.size:
        raise UnusableError("empty", "there are no log-probabilities")
    if len(logs) > 1 and not logs.any():
        raise UnusableError("zeros", f"all of {len(logs)} log-probabilities are zero")
    if np.isnan(logs).any():
        raise UnusableError("not_probabilities", "a log-probability is not a number")
    masses: NDArray[np.float64] = np.exp(np.where(logs > FILLER, logs, -np.inf).clip(max=1))
    total = float(masses.sum())
    if total > 1 + ROUNDING:
        raise UnusableError("not_probabilities", f"the probabilities add up to {total:.3g}")
    masses /= max(total, 1.0)
    return masses


def _share(masses: NDArray[np.float64], left: float, most: float) -> Distribution:
    """Return the distribution of masses (classes,); the zeros among them share what is left.

    None of them gets more than ``most``; what nobody may have is off the list.
    """
    unlisted = masses == 0
    count = int(unlisted.sum())
    censored = min(max(left, 0.0), count * most)
    share = min(max(continue_tail(censored, most, count), FLOOR), most)
    restored = np.where(unlisted, share, masses)
    off_list = max(0.0, 1 - float(masses.sum()) - censored)
    return Distribution(np.log(restored) - math.log(restored.sum()), censored, off_list)


def continue_tail(total: float, most: float, count: int) -> float:
    """Return a probability to stand for each of so many classes that share ``total``.

    In truth they are not alike: probabilities are taken to fall on from ``most``, each by the same
    factor, to that total. Which class has which is not known, so all get their harmonic mean.
    Shared alike, the total lends a class more than most of them have, and a student that is told
    too much of a class loses more than one that is told too little: half a point of accuracy with
    a sure teacher.
    """
    if not total:
        return 0.0
    ranks, low, high = np.arange(1, count + 1), 0.0, 1.0
    for _ in range(50):
        factor = (low + high) / 2
        below = most * (factor**ranks).sum() < total
        low, high = (factor, high) if below else (low, factor)
    return float(most * count * np.exp(-logsumexp(-ranks * np.log(high))))
