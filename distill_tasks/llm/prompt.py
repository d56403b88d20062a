"""Prompts: what a language model is asked about one text, made from a Jinja template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, NonNegativeInt

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import InputError, did_you_mean, shortlist
from distill_tasks.core.settings import Settings
from distill_tasks.data.corpus import Corpus

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

Wanted = Literal["code", "name", "confidence"]
"""What is to be answered: the code or the name of one class, or a number for each."""
Message = dict[str, str]
"""One message of a chat: its `role` and its `content`."""

PARTING = "---"
"""The line of a template between what is the same for all texts and what is not."""
CONSTANT = "about", "options", "examples", "wanted"
"""What a template may name above that line; below it, `text` as well."""
DEFAULT_TEMPLATE = """\
You sort texts into classes.{% if about %} {{ about }}{% endif %}

The classes{% if wanted != "name" %}, each with its code{% endif %}:
{% for option in options -%}
{{ "-" if wanted == "name" else option.code ~ ")" }} \
{{ option.name }}{% if option.description %}: {{ option.description }}{% endif %}
{% endfor %}
{% if wanted == "confidence" -%}
State your confidence in each class. Answer with one JSON object that has every code as a key \
and a number from 0 to 1 as its value, and with nothing else.
{%- else -%}
Answer with the {{ wanted }} of the class that fits best, and with nothing else.
{%- endif %}
{% for example in examples %}
<text>
{{ example.text }}
</text>
{{ "Class" if wanted == "name" else "Code" }}: {{ example.code }}
{% endfor %}
---
<text>
{{ text }}
</text>
{{ "Class" if wanted == "name" else "Code" }}:"""
"""Instructions, classes and examples come first and the text last, so that a server can keep what
it made of the beginning."""


class PromptConfig(Settings):
    """What a language model is told about the task."""

    about: str | None = Field(
        None, description="What the texts are, in a sentence: the default template begins with it."
    )
    descriptions: dict[str, str] = Field(
        {}, description="What belongs to a class, by its name, where the name does not say it."
    )
    examples: NonNegativeInt = Field(
        0,
        description="Rows of train with gold that are shown as examples, the classes in turn; "
        "never rows of validation or held-out.",
    )
    template: str | None = Field(
        None,
        description="Path of a Jinja template of your own. A line `---` parts what is the same for "
        "all texts (`about`, `options` with code, name and description, `examples` with text and "
        "code, `wanted`) from the last message, which also has `text`.",
    )

    def read_template(self) -> str:
        """Return the template; raise InputError if it cannot be read, or names what there is not.

        Its first part must not depend on the text, and its second one must.
        """
        if self.template is None:
            return DEFAULT_TEMPLATE
        about = f"teacher.prompt.template {self.template}"
        written = read_file(self.template, about)
        _check_template(written, about)
        return written

    def make(
        self, corpus: Corpus, codes: Sequence[str], seed: int, wanted: Wanted = "code"
    ) -> Prompt:
        """Return the prompt for the classes of a corpus, whose n-th option has the n-th code.

        Raises InputError for a wrong template, or a description of what is no class.
        """
        self.check_descriptions(corpus)
        return Prompt(
            template=self.read_template(),
            about=self.about,
            classes=corpus.classes,
            descriptions=self.descriptions,
            codes=tuple(codes),
            examples=draw_examples(corpus, self.examples, seed),
            wanted=wanted,
        )

    def check_descriptions(self, corpus: Corpus) -> None:
        """Raise InputError for a description of what is no class of a corpus."""
        unknown = [name for name in self.descriptions if name not in corpus.classes]
        if unknown:
            raise InputError(
                f"teacher.prompt.descriptions has {unknown[0]!r}"
                f"{did_you_mean(unknown[0], corpus.classes)}, which is no class of the data: "
                f"{shortlist(corpus.classes)}."
            )


@dataclass(frozen=True)
class Prompt:
    """What is asked about a text; the options can be listed in any order."""

    template: str
    about: str | None
    classes: tuple[str, ...]
    descriptions: Mapping[str, str]
    codes: tuple[str, ...]
    """The code of the first option, of the second, ...: a code belongs to a place in the list.
    Where names are wanted, a class's name stands for its code."""
    examples: tuple[tuple[str, int], ...]
    """Texts with the numbers of their classes."""
    wanted: Wanted = "code"

    def messages(self, text: str, order: Sequence[int]) -> list[Message]:
        """Return the chat that asks about one text, with the classes listed in an order."""
        names, constant = self._make_constant(order)
        asked = self._ask.render(text=as_content(text), **names).strip()
        return [{"role": "system", "content": constant}, {"role": "user", "content": asked}]

    def show(self, text: str) -> str:
        """Return the chat about a text as people read it."""
        messages = self.messages(text, range(len(self.classes)))
        return "\n\n".join(f"[{one['role']}]\n{one['content']}" for one in messages)

    def constant(self, order: Sequence[int]) -> str:
        """Return what is the same for all texts: instructions, classes and examples."""
        return self._make_constant(order)[1]

    @property
    def digest(self) -> str:
        """The digest of everything that it consists of."""
        about = [self.template, self.about, self.classes, dict(self.descriptions), self.codes]
        return digest(*about, self.examples, self.wanted)

    @property
    def _tell(self) -> Template:
        return self._parts[0]

    @property
    def _ask(self) -> Template:
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[Template, Template]:
        environment = open_environment()
        tell, ask = split_template(self.template)
        return environment.from_string(tell), environment.from_string(ask)

    def _make_constant(self, order: Sequence[int]) -> tuple[dict[str, object], str]:
        """Return what a template may name, and the first message, made once for each order."""
        key = tuple(order)
        if key not in self._made:
            names = self._name_constant(key)
            self._made[key] = names, self._tell.render(**names).strip()
        return self._made[key]

    @cached_property
    def _made(self) -> dict[tuple[int, ...], tuple[dict[str, object], str]]:
        return {}

    def _name_constant(self, order: Sequence[int]) -> dict[str, object]:
        named = self.wanted == "name"
        codes = {
            number: self.classes[number] if named else self.codes[place]
            for place, number in enumerate(order)
        }
        options = [
            {
                "code": code,
                "name": self.classes[number],
                "description": self.descriptions.get(self.classes[number]),
            }
            for number, code in codes.items()
        ]
        examples = [
            {"text": as_content(text), "code": codes[number]} for text, number in self.examples
        ]
        return {
            "about": self.about,
            "options": options,
            "examples": examples,
            "wanted": self.wanted,
        }


def split_template(written: str) -> tuple[str, str]:
    """Return the part of a template for all texts, and that for each."""
    told, _, asked = written.partition(f"\n{PARTING}\n")
    return told, asked


def draw_examples(corpus: Corpus, count: int, seed: int) -> tuple[tuple[str, int], ...]:
    """Return so many rows of train with gold, at random, the classes in turn."""
    train = corpus.splits["train"]
    if not count or train.gold.ndim != 1:
        return ()
    order = np.random.default_rng(seed).permutation(len(train))
    waiting = {
        number: [row for row in order if train.gold[row] == number]
        for number in range(len(corpus.classes))
    }
    drawn: list[tuple[str, int]] = []
    while len(drawn) < count and any(waiting.values()):
        for number, rows in waiting.items():
            if rows and len(drawn) < count:
                drawn.append((train.texts[rows.pop()], number))
    return tuple(drawn)


def cut_middle(text: str, characters: int) -> str:
    """Return a text without its middle if it is longer than so many characters."""
    if len(text) <= characters:
        return text
    kept = characters - len(CUT)
    return f"{text[: kept - kept // 2]}{CUT}{text[len(text) - kept // 2 :]}"


CUT = " [...] "
"""What stands for the middle of a text that was cut."""


def as_content(text: str) -> str:
    """Return a text that cannot end the element it stands in."""
    return re.sub(r"<(?=/?text\b)", "< ", text, flags=re.IGNORECASE)


def read_file(path: str, about: str) -> str:
    """Return a template as written; raise InputError, which begins with ``about``, if not read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8"
        raise InputError(f"{about} cannot be read: {reason}. Correct it.") from None


def open_environment() -> ImmutableSandboxedEnvironment:
    """Return what renders templates: they call nothing, and name nothing that there is not."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=False)


def find_names(part: str, allowed: Sequence[str], about: str, where: str = "") -> set[str]:
    """Return what a part of a template names.

    Raises InputError, which begins with ``about``, if it is no Jinja or names what is not allowed.
    """
    from jinja2 import TemplateSyntaxError, meta

    try:
        names = meta.find_undeclared_variables(open_environment().parse(part))
    except TemplateSyntaxError as error:
        raise InputError(
            f"{about} is no Jinja template: {error.message} (line {error.lineno}). Correct it."
        ) from None
    if odd := sorted(names - set(allowed)):
        raise InputError(
            f"{about} names {odd[0]!r}{did_you_mean(odd[0], allowed)}; {where}there are "
            f"{shortlist(allowed)}."
        )
    return names


def _check_template(written: str, about: str) -> None:
    """Raise InputError for a template that is no Jinja, has no two parts, or an unknown name."""
    told, asked = split_template(written)
    if not asked.strip():
        raise InputError(
            f"{about} has no line {PARTING!r} with the last message, which shows the text, below "
            "it. Add both."
        )
    find_names(told, CONSTANT, about, f"above {PARTING!r} ")
    if "text" not in find_names(asked, (*CONSTANT, "text"), about, f"below {PARTING!r} "):
        raise InputError(f"{about} never shows the text. Put {{{{ text }}}} below {PARTING!r}.")
