"""Teacher kind ``callable``: a function of the user's own that answers a list of texts."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.digests import digest, digest_file
from distill_tasks.core.errors import (
    InputError,
    PotstillError,
    did_you_mean,
    say_error,
    shortlist,
    stop_if_disk_full,
)
from distill_tasks.teachers.base import Teacher
from distill_tasks.teachers.replies import ReplyReader, ask_first_rows
from distill_tasks.teachers.values import Scale, refuse_other_classes

if TYPE_CHECKING:
    from distill_tasks.core.notes import Note
    from distill_tasks.data.corpus import Corpus
    from distill_tasks.data.settings import RowFormat
    from distill_tasks.problems.classification import Problem
    from distill_tasks.teachers.base import Batches, LabellingContext


class CallableTeacher(Teacher):
    """A function that is called with a list of texts and returns an answer to each."""

    kind: Literal["callable"] = Field("callable", description="The kind of teacher.")
    function: str = Field(
        pattern=r"^[\w.]+:[\w.]+$",
        description="`package.module:function`, importable from the working directory too. It is "
        "called with a list of texts and returns one item for each: numbers, a label, or a mapping "
        "of classes to numbers; None leaves a row unanswered.",
    )
    values: Scale = Field(
        "probabilities",
        description="What its numbers are; probabilities of a single label sum to one.",
    )
    classes: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        description="The order of its numbers; when absent, the function's attribute `classes`, or "
        "else the alphabetical order of the data's classes.",
    )
    batch_rows: int = Field(64, ge=1, le=100_000, description="Texts in one call.")
    version: int = Field(
        1,
        ge=1,
        description="Raise it when something that the function calls has changed, so that it is "
        "asked again; changes of its own file are noticed.",
    )

    def check(self, columns: RowFormat, problem: Problem) -> tuple[str, ...] | None:
        """Return the classes that it or the function names; None if neither does.

        Raises InputError for a function that cannot be imported.
        """
        return self._order(open_function(self.function))

    def check_rows(self, corpus: Corpus, columns: RowFormat) -> list[Note]:
        """Raise InputError if it names other classes than the data's."""
        refuse_other_classes(self._order(open_function(self.function)), corpus, self._source)
        return []

    def probe(self, context: LabellingContext) -> list[Note]:
        """Call it with the first rows of train, and tell if its answers are one-hot."""
        return ask_first_rows(self, context)

    def digest(self, corpus: Corpus, seed: int, balanced: bool) -> str:
        """Return the digest of its name, of the file it is written in, and of how it is read."""
        settings = self.model_dump(exclude={"batch_rows", "classes"})
        files = _digest_sources(self.function)
        return digest(settings, files, corpus.classes, corpus.problem)

    def answers(self, texts: Sequence[str], context: LabellingContext) -> Batches:
        """Call the function batch by batch and return its answers."""
        function, corpus = open_function(self.function), context.corpus
        order = self._order(function)
        reader = ReplyReader(self._source, corpus.classes, corpus.problem, self.values, order)
        call = partial(_call, function, name=self.function)
        yield from reader.ask(call, texts, self.batch_rows)

    def _order(self, function: Any) -> tuple[str, ...] | None:
        """Return the order of its numbers, as it is set or as the function names it."""
        named = self.classes or getattr(function, "classes", None)
        if named is None:
            return None
        order = tuple(map(str, named))
        if len(set(order)) < max(len(order), 2):
            raise InputError(
                f"The classes of {self.function} are {shortlist(order)}. Name each of two or more "
                "once."
            )
        return order

    @property
    def _source(self) -> str:
        """The subject of sentences about its answers."""
        return f"Answers of {self.function}"


def open_function(name: str) -> Callable[[list[str]], Any]:
    """Return the function of a name ``package.module:function``.

    The working directory is searched after all other places. Raises InputError for a module that
    cannot be imported, and for what is missing in it or cannot be called.
    """
    module, _, path = name.partition(":")
    found: Any = _import(module)
    for part in path.split("."):
        if not hasattr(found, part):
            near = did_you_mean(part, [one for one in dir(found) if not one.startswith("_")])
            raise InputError(
                f"teacher.function {name}: {module} has no {part!r}{near}. Correct the name."
            )
        found = getattr(found, part)
    if not callable(found):
        raise InputError(
            f"teacher.function {name} is a {type(found).__name__}, which cannot be called. Name a "
            "function that takes a list of texts."
        )
    return found  # type: ignore[no-any-return]  # callable is all that is known of it


def _import(module: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # to stay: what the function imports when it is called lies there too
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever a module does
        raise InputError(
            f"teacher.function: {module} cannot be imported: {mask_credentials(say_error(error))}. "
            "Correct the name, or start in the folder it lies in."
        ) from None


def _call(function: Callable[[list[str]], Any], texts: list[str], name: str) -> Any:
    try:
        return function(texts)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever a function does
        stop_if_disk_full(error)
        raise PotstillError(
            f"{name} failed: {mask_credentials(say_error(error))}. What it answered before is "
            "kept; the same command goes on from here."
        ) from None


def _digest_sources(name: str) -> list[str]:
    """Return the digests of the named module's file, and of the file that defines the function."""
    function = inspect.unwrap(open_function(name))
    modules = {name.partition(":")[0], getattr(function, "__module__", None)}
    files = {getattr(sys.modules.get(module or ""), "__file__", None) for module in modules}
    return sorted(digest_file(Path(file)) for file in files if file is not None)
