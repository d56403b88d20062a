"""The language model behind the scripted endpoint: it reads a prompt, asks an oracle, and answers.

The oracle is any function of a text and the names of the classes, in the order of the prompt, that
returns their probabilities. What a real model adds to that (a liking for the option that stands
first, noise, rows that it gets wrong) is added here, so that a client has something to correct.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Oracle = Callable[[str, Sequence[str]], Sequence[float]]
"""Returns the probability of each class (classes,) for one text; the order is the prompt's."""

Author = Callable[[str, int, random.Random], Sequence[str]]
"""Writes so many texts of a class, by its name; all that is random comes from what it is given."""


@dataclass(frozen=True)
class Model:
    """What stands behind the endpoint: it judges texts, and may write some."""

    oracle: Oracle
    author: Author | None = None


WRITE = re.compile(r"^Write (\d+) new texts of the class (.+?), each", re.MULTILINE)
"""The line of a prompt that asks for texts: how many, and of which class."""
OPTION = re.compile(r"^([^\s()]{1,8})\) (.+?)(?:: .*)?$")
"""One line of the prompt that offers a class: `CODE) name: description` or `CODE) name`."""
TEXT = re.compile(r"<text>(.*?)</text>", re.DOTALL)
OFF_LIST = {"The": 0.5, "I": 0.3, "\n": 0.2}
"""Tokens that are no option, with the share of their mass."""
TINY = 1e-9


@dataclass(frozen=True)
class Flaws:
    """What is wrong with the model's judgement."""

    first_option_bonus: float = 0.0
    """What the first option's logit gains; the second gains half, the third a third."""
    temperature: float = 1.0
    """Below 1 the model is surer than the oracle, above 1 less sure."""
    noise: float = 0.0
    """Standard deviation of what each logit gains, drawn anew for each request."""
    wrong_share: float = 0.0
    """Share of texts, always the same ones, whose two likeliest classes are exchanged."""
    off_list_mass: float = 0.02
    """Probability of all tokens that are no option."""


@dataclass(frozen=True)
class Prompt:
    """What the model understands of the messages."""

    options: dict[str, str]
    """Names of classes by their codes, in the order of the prompt."""
    text: str
    verbalised: bool
    """Whether it is asked to state confidences."""
    texts: int = 0
    """How many texts it is asked to write."""
    about: str = ""
    """The class that these are to be of."""


@dataclass(frozen=True)
class Reply:
    """What the model says, and the likeliest first tokens with their log-probabilities."""

    content: str
    likeliest: tuple[tuple[str, float], ...] = ()
    refusal: str | None = None


@dataclass(frozen=True)
class Allowed:
    """The values that a constrained answer may take, and the field of the object they stand in."""

    values: tuple[str, ...]
    field: str = ""


def read_prompt(messages: Sequence[dict[str, Any]]) -> Prompt:
    """Return the options, the text to be classified and what is asked for."""
    contents = [str(message.get("content") or "") for message in messages]
    asked = next(
        (c for m, c in zip(messages[::-1], contents[::-1], strict=True) if m["role"] == "user"), ""
    )
    if order := WRITE.search(asked):
        return Prompt({}, asked, verbalised=False, texts=int(order[1]), about=order[2])
    texts = TEXT.findall(asked)
    text = texts[-1].strip() if texts else asked.strip()
    system = "\n".join(c for m, c in zip(messages, contents, strict=True) if m["role"] == "system")
    before = "\n".join(contents).rpartition("<text>")[0] or "\n".join(contents)
    return Prompt(find_options(before.splitlines()), text, "confidence" in system.lower())


def find_options(lines: Iterable[str]) -> dict[str, str]:
    """Return the first block of lines that offer classes, as names by code."""
    options: dict[str, str] = {}
    for line in lines:
        found = OPTION.match(line.strip())
        if found:
            options[found[1]] = found[2]
        elif options:
            break
    return options


def judge(oracle: Oracle, prompt: Prompt, flaws: Flaws, draw: random.Random) -> dict[str, float]:
    """Return the probability of each option by code, flaws included; their sum is one."""
    codes, names = list(prompt.options), list(prompt.options.values())
    logits = [math.log(max(float(one), TINY)) for one in oracle(prompt.text, names)]
    if draw_share(prompt.text, "wrong") < flaws.wrong_share and len(logits) > 1:
        first, second = sorted(range(len(logits)), key=logits.__getitem__)[:-3:-1]
        logits[first], logits[second] = logits[second], logits[first]
    moved = [
        logit / flaws.temperature
        + flaws.first_option_bonus / place
        + (draw.gauss(0, flaws.noise) if flaws.noise else 0)
        for place, logit in enumerate(logits, start=1)
    ]
    return dict(zip(codes, soften(moved), strict=True))


def soften(logits: Sequence[float]) -> list[float]:
    """Return the softmax of logits."""
    highest = max(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    total = sum(weights)
    return [weight / total for weight in weights]


def draw_share(text: str, purpose: str) -> float:
    """Return a number in [0, 1) that depends on the text and the purpose alone."""
    digest = hashlib.blake2b(f"{purpose}\0{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def spread_tokens(likely: dict[str, float], flaws: Flaws) -> dict[str, float]:
    """Return the probability of every first token: the options' codes and what is no option."""
    kept = {code: share * (1 - flaws.off_list_mass) for code, share in likely.items()}
    return kept | {
        token: flaws.off_list_mass * share
        for token, share in OFF_LIST.items()
        if token not in kept and flaws.off_list_mass
    }


def answer_with_code(tokens: dict[str, float], temperature: float, draw: random.Random) -> Reply:
    """Answer one token: the likeliest at temperature 0, else a sampled one."""
    likeliest = rank(tokens)
    if temperature <= 0:
        return Reply(likeliest[0][0], likeliest)
    weights = [math.exp((score - likeliest[0][1]) / temperature) for _, score in likeliest]
    return Reply(draw.choices([token for token, _ in likeliest], weights)[0], likeliest)


def rank(tokens: dict[str, float]) -> tuple[tuple[str, float], ...]:
    """Return tokens with their log-probabilities, likeliest first."""
    scored = ((token, math.log(max(share, TINY))) for token, share in tokens.items())
    return tuple(sorted(scored, key=lambda pair: -pair[1]))


def answer_with_confidences(likely: dict[str, float]) -> Reply:
    """State a confidence for each option that has one, in steps of 0.05 as models like to."""
    stated = {code: round(20 * share) / 20 for code, share in likely.items()}
    return Reply(json.dumps({code: share for code, share in stated.items() if share}))


def answer_with_texts(texts: Sequence[str], held: bool) -> Reply:
    """List texts: as one JSON object where a grammar asks for it, else with words around it."""
    if held:
        return Reply(json.dumps({"texts": [*texts]}))
    return Reply(f"Here are {len(texts)} texts:\n\n```json\n{json.dumps([*texts], indent=1)}\n```")


def answer_within(allowed: Allowed, prompt: Prompt, likely: dict[str, float]) -> Reply:
    """Answer the likeliest of the values that a grammar allows."""
    shares = {
        value: likely[code]
        for code, name in prompt.options.items()
        for value in (code, name)
        if value in allowed.values
    }
    best = max(shares, key=shares.__getitem__, default=allowed.values[0])
    if allowed.field:
        return Reply(json.dumps({allowed.field: best}))
    total = sum(shares.values()) or 1
    return Reply(best, rank({value: share / total for value, share in shares.items()}))


def read_constraint(body: dict[str, Any]) -> Allowed | None:
    """Return what a request allows as an answer: a JSON schema's enum, or vLLM's choice."""
    choice = (body.get("structured_outputs") or {}).get("choice")
    if choice:
        return Allowed(tuple(choice))
    schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema") or {}
    for field, rule in schema.get("properties", {}).items():
        if "enum" in rule:
            return Allowed(tuple(rule["enum"]), field)
    return None
