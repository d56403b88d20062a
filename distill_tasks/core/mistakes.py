"""Messages about a wrong configuration: one sentence, with the key as the user wrote it.

None of pydantic's own words reach the user: every type of error that a configuration can raise has
words here, which a test checks by going through the whole schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from pydantic import ValidationError

from distill_tasks.core.errors import did_you_mean, shortlist
from distill_tasks.core.settings import count_grid

LONGEST_FOUND = 80
"""How many characters of a wrong value a message shows."""
MOST_ALLOWED = 20
"""How many allowed keys or kinds a message lists."""
WANTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "keys with values",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_type": "a whole number",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_attributes_type": "keys with values",
    "model_type": "keys with values",
    "string_too_long": "text of at most {max_length} characters",
    "string_too_short": "text that is not empty",
    "string_type": "text, in quotes if it looks like something else",
    "string_unicode": "text",
    "too_long": "a list of at most {max_length} items",
    "too_short": "a list that is not empty",
    "tuple_type": "a list",
}
"""What a value must be, by the type of pydantic's error; bounds stand in braces."""
PATTERNS = {
    r"^[\w.-]+$": "letters, digits, dots, dashes and underscores alone",
    r"^[\w. -]+$": "letters, digits, spaces, dots, dashes and underscores alone",
    r"^[0-9]+(-[0-9]+)*$": "numbers joined by dashes, such as 0-2-4",
    r"^[\w.]+:[\w.]+$": "a module and a function in it, such as package.module:function",
    r"^models:/[^/@]+(@[^/@]+|/[0-9]+)$": "models:/NAME@ALIAS or models:/NAME/VERSION",
    r"^https?://[^/\s]+(/\S*)?$": "an address that begins with http:// or https://",
    r"^https?://\S+$": "an address that begins with http:// or https://",
    r"^https?://": "an address that begins with http:// or https://",
    r"^(auto|[\w.-]+:\d+)$": "host:port, such as 10.0.0.1:6379, or auto",
    r"^[A-Za-z_]\w*$": "the name of an environment variable",
}
"""What the regular expressions of the configuration ask for."""


@dataclass(frozen=True)
class Mistake:
    """One of pydantic's errors, and the place of it in the configuration file."""

    kind: str
    """Pydantic's type of the error."""
    key: tuple[str, ...]
    """The keys on the way to the wrong value, as the user wrote them."""
    node: dict[str, Any]
    """The part of the JSON schema about the innermost of these keys."""
    last: str
    """The last part of pydantic's location."""
    depth: int
    """The number of its parts."""
    found: Any
    message: str
    about: dict[str, Any]
    """What pydantic says besides, such as the bound."""

    @property
    def is_unknown_key(self) -> bool:
        """Whether the key itself is not allowed."""
        return self.kind == "extra_forbidden" or (self.last, self.kind) == (
            "[key]",
            "literal_error",
        )

    @property
    def is_no_text(self) -> bool:
        """Whether the key itself is a number, a date or something else but text."""
        return self.kind == "invalid_key" or (self.last == "[key]" and not self.is_unknown_key)

    @property
    def wanted(self) -> str:
        """What the value must be."""
        return _say_wanted(self.kind, self.about, self.message)

    @property
    def place(self) -> tuple[str, ...]:
        """The keys to what is wrong, an unknown key included."""
        if not (self.is_unknown_key or self.is_no_text):
            return self.key
        return (*self.key, str(self.found) if self.last == "[key]" else self.last)


def explain_first(
    mistakes: list[dict[str, Any]], written: dict[str, Any], schema: dict[str, Any]
) -> str:
    """Return one sentence about the first wrong key, with the number of other wrong keys.

    ``mistakes`` are pydantic's errors, ``written`` the plain data, ``schema`` the configuration's
    JSON schema. Pydantic reports a key of a union once for each member of the union, and a list
    with a wrong item also as too short; each such key counts once.
    """
    meant = [
        mistake
        for mistake in mistakes
        if mistake["type"] != "too_short" or len(mistake["input"]) < mistake["ctx"]["min_length"]
    ]
    read = _read_all(meant, written, schema)
    places = {mistake.place for mistake in read}
    wrong = places - {place[:length] for place in places for length in range(len(place))}
    more = f" ({len(wrong) - 1} more after this one)" if len(wrong) > 1 else ""
    first = next(mistake.place for mistake in read if mistake.place in wrong)
    return _explain([mistake for mistake in read if mistake.place == first]) + more


def list_unknown_keys(
    mistakes: list[dict[str, Any]], written: dict[str, Any], schema: dict[str, Any]
) -> list[str]:
    """Return every key that is not known, each once and with the nearest one that is."""
    unknown = [
        f"`{'.'.join(one.place)}`{did_you_mean(one.place[-1], one.node.get('properties', {}))}"
        for one in _read_all(mistakes, written, schema)
        if one.is_unknown_key
    ]
    return list(dict.fromkeys(unknown))


def _read_all(
    mistakes: list[dict[str, Any]], written: dict[str, Any], schema: dict[str, Any]
) -> list[Mistake]:
    locations = _as_written([list(mistake["loc"]) for mistake in mistakes], written)
    return [
        _read(mistake, location, schema)
        for mistake, location in zip(mistakes, locations, strict=True)
    ]


def _as_written(locations: list[list[int | str]], written: dict[str, Any]) -> list[list[str]]:
    """Return error locations with the students numbered as in the configuration file."""
    students = written.get("students")
    counts = [count_grid([student]) for student in students] if isinstance(students, list) else []
    origins = np.repeat(np.arange(len(counts)), counts)
    for location in locations:
        match location:
            case ["students", int(number), *_] if number < len(origins):
                location[1] = int(origins[number])
    return [[str(part) for part in location] for location in locations]


def _read(mistake: dict[str, Any], location: list[str], schema: dict[str, Any]) -> Mistake:
    """Return one of pydantic's errors with its place in the configuration file."""
    key, node = _locate(location, schema)
    return Mistake(
        kind=mistake["type"],
        key=tuple(key),
        node=node,
        last=location[-1] if location else "",
        depth=len(location),
        found=mistake["input"],
        message=str(mistake["msg"]).removeprefix("Value error, "),
        about=mistake.get("ctx", {}),
    )


def _explain(mistakes: list[Mistake]) -> str:
    """Return one sentence about the errors of one key, one for each form that it may have."""
    first = mistakes[0]
    where = ".".join(first.place)
    if first.is_unknown_key:
        return _refuse_key(first)
    if first.kind == "missing":
        return f"the key `{where}` is missing. Add it."
    if first.is_no_text:
        return f"the key {_show(first.found)} is no text. Put it in quotes."
    if first.kind.startswith("union_tag"):
        return _refuse_kind(first)
    if first.kind == "value_error":
        return _refuse_value(first)
    return _refuse_form(mistakes)


def _refuse_form(mistakes: list[Mistake]) -> str:
    """Return what to say of a value that has none of the forms that its key may have."""
    found = max(mistakes, key=lambda one: one.depth).found  # a part of it, if that alone is wrong
    wanted = list(dict.fromkeys(one.wanted for one in mistakes if one.found is found))
    joint = ", or " if re.search(" or |,", " ".join(wanted)) else " or "
    words = [word for one in wanted for word in _unquote(one)]
    meant = did_you_mean(found, words) if isinstance(found, str) else ""
    where = ".".join(mistakes[0].key)
    return f"`{where}`: must be {joint.join(wanted)}, found {_show(found)}{meant}."


def _refuse_key(mistake: Mistake) -> str:
    """Return what to say of a key that is not known."""
    allowed = (
        _unquote(mistake.about["expected"])
        if mistake.last == "[key]"
        else sorted(mistake.node.get("properties", {}))
    )
    return (
        f"unknown key `{'.'.join(mistake.place)}`{did_you_mean(mistake.place[-1], allowed)}. "
        f"Allowed here: {shortlist(allowed, MOST_ALLOWED)}."
    )


def _refuse_kind(mistake: Mistake) -> str:
    """Return what to say of settings whose `kind` or `family` is unknown or missing."""
    (key,) = _unquote(mistake.about["discriminator"])
    kinds = list(mistake.node["discriminator"]["mapping"])
    allowed = f"Allowed: {shortlist(kinds, MOST_ALLOWED)}."
    where = ".".join((*mistake.key, key))
    found = mistake.found.get(key)
    if found is None:
        return f"the key `{where}` is missing. {allowed}"
    meant = did_you_mean(found, kinds) if isinstance(found, str) else ""
    return f"`{where}`: unknown {key} {_show(found)}{meant}. {allowed}"


def _refuse_value(mistake: Mistake) -> str:
    """Return what one of our own checks says of a value, or of several settings together."""
    inner = mistake.about.get("error")
    message, where = mistake.message, ".".join(mistake.key)
    if isinstance(inner, ValidationError):  # a student at the end of a search space
        message = "; ".join(_say_inner(inner))
    if not where:
        return f"{message}."
    found = "" if isinstance(mistake.found, dict) else f", found {_show(mistake.found)}"
    return f"`{where}`: {message}{found}."


def _say_inner(error: ValidationError) -> Iterator[str]:
    """Yield what is wrong with each key of settings that one of our checks has made."""
    for found in error.errors():
        wanted = _say_wanted(found["type"], found.get("ctx", {}), "")
        key = ".".join(str(part) for part in found["loc"])
        yield (
            f"{key} must be {wanted}, found {_show(found['input'])}"
            if wanted
            else str(found["msg"]).removeprefix("Value error, ")
        )


def _say_wanted(kind: str, about: dict[str, Any], message: str) -> str:
    """Return what a value must be; pydantic's own message where there are no words for it."""
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(about["pattern"], f"text of the form {about['pattern']}")
    if about.get("field_type") == "Dictionary":
        return "keys with values, at least one"
    if kind == "too_short" and about["min_length"] > 1:
        return f"a list of at least {about['min_length']} items"
    bounds = {name: _say_bound(bound) for name, bound in about.items()}
    return WANTED[kind].format(**bounds) if kind in WANTED else message


def _locate(location: list[str], schema: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return the keys of an error location as the user wrote them, and the schema at the last one.

    Pydantic's locations also contain the member of each union on the way, which are no keys.
    """
    node = schema
    keys = []
    for part in location:
        if part in node.get("properties", {}):
            node = node["properties"][part]
            present = [option for option in _options(node) if option.get("type") != "null"]
            node = present[0] if len(present) == 1 else node  # an optional value is no choice
            keys.append(part)
        elif "items" in node and part.isdigit():
            node = node["items"]
            keys.append(part)
        elif part in (kinds := node.get("discriminator", {}).get("mapping", {})):
            node = {"$ref": kinds[part]}
        elif references := [option for option in _options(node) if "$ref" in option]:
            node = references[0]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return keys, node


def _options(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the alternatives of a union in the schema, including those of nested unions."""
    direct = [*node.get("anyOf", []), *node.get("oneOf", [])]
    return [*direct, *(inner for option in direct for inner in _options(option))]


def _show(found: Any) -> str:
    """Return a wrong value as its user wrote it, if it is not too long."""
    if found is None:
        return "nothing"
    if isinstance(found, bool):
        return str(found).lower()
    shown = str(found) if isinstance(found, date) else repr(found)
    return f"{shown[:LONGEST_FOUND]}…" if len(shown) > LONGEST_FOUND else shown


def _say_bound(bound: object) -> str:
    """Return a bound with commas, and without a point where it is a whole number."""
    if isinstance(bound, int | float) and bound == int(bound):
        return f"{int(bound):,}"
    return str(bound)


def _unquote(expected: str) -> list[str]:
    """Return the words of an enumeration of pydantic, `'a', 'b' or 'c'`."""
    return re.findall(r"'([^']*)'", expected)
