"""Assignments: what a language model is asked to write for a class, made from a Jinja template."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from distill_tasks.core.digests import digest
from distill_tasks.llm.ledger import WRITING
from distill_tasks.llm.prompt import (
    Message,
    PromptConfig,
    as_content,
    cut_middle,
    find_names,
    open_environment,
    read_file,
)

if TYPE_CHECKING:
    from jinja2 import Template

    from distill_tasks.data.corpus import Corpus

TEXTS_EACH = 10
"""Texts that one request asks for."""
SHOWN_ROWS = 5
"""Rows of the class that one request shows."""
LEAST_TOKENS, BYTES_PER_TOKEN = 128, 2
"""What is allowed for a written text: so many tokens, or one for so few bytes of the longest text
that is shown, about twice what that has."""
NAMES = "about", "name", "description", "others", "examples", "count"
"""What a template may name."""
DEFAULT_TEMPLATE = """\
You write example texts, from which a text classifier will learn.{% if about %} {{ about }}\
{% endif %}

The class: {{ name }}{% if description %}: {{ description }}{% endif %}
{% if others %}
The other classes, to none of which the texts may belong: {{ others | join(", ") }}
{% endif %}
{%- if examples %}
Real texts of the class {{ name }}:
{% for example in examples %}
<text>
{{ example }}
</text>
{% endfor %}
{%- endif %}
Write {{ count }} new texts of the class {{ name }}, each as a real writer would. They must differ \
from each other, and from those above, as real texts do: in what has happened, in who writes and \
in which mood, in words, length, order and mistakes. Repeat no sentence, and copy nothing from \
above.
Answer with one JSON object, {"texts": [...]}, that lists the {{ count }} texts as strings, and \
with nothing else."""


class WriterPromptConfig(PromptConfig):
    """What a language model is told about the task, also where it writes texts."""

    synthesize: str | None = Field(
        None,
        description="Path of a Jinja template of your own for `potstill synthesize`. It may name "
        "`about`, the class's `name` and `description`, `others` (names of the other classes), "
        "`examples` (texts of rows of train) and `count`, and asks for a JSON list of texts.",
    )

    def make_assigner(
        self, corpus: Corpus, *, seed: int, most_characters: int, spare_tokens: int
    ) -> Assigner:
        """Return what makes the assignments for the classes of a corpus.

        Texts that are shown have so many characters at most; ``spare_tokens`` are for what a model
        thinks before it answers. Raises InputError for a wrong template or description.
        """
        self.check_descriptions(corpus)
        return Assigner(self, self._read_writing(), corpus, seed, most_characters, spare_tokens)

    def _read_writing(self) -> str:
        if self.synthesize is None:
            return DEFAULT_TEMPLATE
        about = f"teacher.prompt.synthesize {self.synthesize}"
        written = read_file(self.synthesize, about)
        find_names(written, NAMES, about)
        return written


@dataclass(frozen=True)
class Assignment:
    """One request for texts of a class."""

    number: int
    """Which request for this class it is, from 0."""
    messages: list[Message]
    most_tokens: int
    """Tokens that the answer may have."""

    @property
    def request(self) -> str:
        """The name under which its reply is kept: of what is asked, and how often before."""
        return f"{WRITING}{digest(self.messages, self.number)}"


@dataclass
class Assigner:
    """Makes assignments: each shows other rows of train, none of validation or held-out."""

    prompt: WriterPromptConfig
    template: str
    corpus: Corpus
    seed: int
    most_characters: int
    spare_tokens: int

    def assign(self, name: str, number: int) -> Assignment:
        """Return the assignment of a class and a number, the same whenever it is made."""
        examples = self._draw(name, number)
        rendered = self._template.render(
            about=self.prompt.about,
            name=name,
            description=self.prompt.descriptions.get(name),
            others=[other for other in self.corpus.classes if other != name],
            examples=list(map(as_content, examples)),
            count=TEXTS_EACH,
        )
        longest = max((len(text.encode()) for text in examples), default=0)
        each = max(LEAST_TOKENS, longest // BYTES_PER_TOKEN)
        message = {"role": "user", "content": rendered.strip()}
        return Assignment(number, [message], self.spare_tokens + TEXTS_EACH * each)

    @cached_property
    def _template(self) -> Template:
        return open_environment().from_string(self.template)

    def _draw(self, name: str, number: int) -> list[str]:
        """Return some rows of a class with gold, drawn anew for each number."""
        train, wanted = self.corpus.splits["train"], self.corpus.classes.index(name)
        rows = np.flatnonzero(train.gold == wanted)
        order = np.random.default_rng([self.seed, wanted, number]).permutation(rows)
        return [cut_middle(train.texts[row], self.most_characters) for row in order[:SHOWN_ROWS]]
