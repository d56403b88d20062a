"""The tokens of all labels as a tree, so that labels of several tokens are compared fairly.

The probability of a label as a plain product favours labels of few tokens, because every further
token loses what the model puts on words that are no label. Here the probabilities are renormalised
over the tokens that can go on at each place, so that those of all labels sum to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Tokens = tuple[int, ...]

PROMPT = -1
"""The place of the last token of the prompt, behind which every label begins."""


@dataclass(frozen=True)
class Choice:
    """A place where labels part, and the tokens that can go on."""

    place: int
    """Number of the token in `LabelTrie.tokens` after which they part, or `PROMPT`."""
    options: Tokens


@dataclass(frozen=True)
class LabelTrie:
    """The tokens to read behind a prompt so that every label can be scored, each of them once.

    Tokens behind which no two labels part are left out: they have no probability but one.
    """

    labels: tuple[Tokens, ...]
    """The tokens of each label; one that begins another ends with the end token."""
    paths: tuple[Tokens, ...]
    """The labels' beginnings that are read, the shortest first."""
    choices: tuple[Choice, ...]
    """The first one stands behind the prompt."""

    @classmethod
    def build(cls, labels: Sequence[Sequence[int]], end: int) -> LabelTrie:
        """Return the tree of some labels; ``end`` is the token by which the model ends an answer.

        Raises ValueError if two labels have the same tokens, or one has none.
        """
        closed = close_labels(labels, end)
        options = {
            path: _list_options(closed, path)
            for path in dict.fromkeys(
                label[:length] for label in closed for length in range(len(label))
            )
        }
        parting = [path for path in options if not path or len(options[path]) > 1]
        paths = sorted(
            {path[:length] for path in parting for length in range(1, len(path) + 1)},
            key=lambda path: (len(path), path),
        )
        places = {(): PROMPT} | {path: number for number, path in enumerate(paths)}
        choices = tuple(Choice(places[path], options[path]) for path in parting)
        return cls(closed, tuple(paths), choices)

    @property
    def tokens(self) -> Tokens:
        """The tokens to read, those of a label in their order."""
        return tuple(path[-1] for path in self.paths)

    @property
    def depths(self) -> Tokens:
        """How many tokens behind the prompt each token stands, from one."""
        return tuple(len(path) for path in self.paths)

    @cached_property
    def before(self) -> NDArray[np.bool_]:
        """Which tokens (tokens, tokens) stand before a token in its label, itself included."""
        return np.array(
            [[path[: len(other)] == other for other in self.paths] for path in self.paths],
            np.bool_,
        ).reshape(len(self.paths), len(self.paths))

    @cached_property
    def steps(self) -> NDArray[np.float32]:
        """Which options (options, classes) a label takes, the options of all choices in turn."""
        places = {PROMPT: (), **dict(enumerate(self.paths))}
        taken = [
            (*places[choice.place], token) for choice in self.choices for token in choice.options
        ]
        return np.array(
            [[label[: len(path)] == path for label in self.labels] for path in taken], np.float32
        )


def close_labels(labels: Sequence[Sequence[int]], end: int) -> tuple[Tokens, ...]:
    """Return the tokens of each label, with the end token where it is the beginning of another.

    Raises ValueError if two labels have the same tokens, or one has none.
    """
    plain = [tuple(label) for label in labels]
    if len(set(plain)) < len(plain) or () in plain:
        raise ValueError("two labels have the same tokens, or one has none")
    return tuple(
        (*label, end)
        if any(other[: len(label)] == label and other != label for other in plain)
        else label
        for label in plain
    )


def _list_options(labels: Sequence[Tokens], path: Tokens) -> Tokens:
    """Return the tokens that go on behind the beginning of a label, in a fixed order."""
    length = len(path)
    return tuple(
        sorted({label[length] for label in labels if label[:length] == path and label[length:]})
    )
