"""Messages about a wrong configuration: one sentence, with the key as the user wrote it."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill_tasks.core.errors import did_you_mean, shortlist
from distill_tasks.core.settings import count_grid

LONGEST_FOUND = 80
"""How many characters of a wrong value a message shows."""
KINDS = {
    "string_type": "text, in quotes if it looks like something else",
    "tuple_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
}
"""What a value should be, by pydantic's error type, where its own message uses Python terms."""


def explain_first(
    mistakes: list[dict[str, Any]], written: dict[str, Any], schema: dict[str, Any]
) -> str:
    """Return one sentence about the first wrong key, with the number of other wrong keys.

    ``mistakes`` are pydantic's errors, ``written`` the plain data, ``schema`` the configuration's
    JSON schema. Pydantic reports a key of a union once for each member of the union, and a list
    with a wrong item also as empty; each such key counts once.
    """
    locations = _as_written([list(mistake["loc"]) for mistake in mistakes], written)
    keys = []
    for mistake, location in zip(mistakes, locations, strict=True):
        unknown = location[-1:] if mistake["type"] == "extra_forbidden" else []
        keys.append((*_locate(location, schema)[0], *unknown))
    messages = [
        _say(mistake) for mistake, key in zip(mistakes, keys, strict=True) if key == keys[0]
    ]
    message, *others = dict.fromkeys(messages)
    for other in others:
        message += f" or {other.removeprefix('Input should be ')}"
    wrong = set(keys) - {key[:length] for key in set(keys) for length in range(len(key))}
    more = f" ({len(wrong) - 1} more after this one)" if len(wrong) > 1 else ""
    return _explain({**mistakes[0], "msg": message}, *_locate(locations[0], schema)) + more


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


def _say(mistake: dict[str, Any]) -> str:
    """Return the message of one of pydantic's errors without Python terms."""
    kind, about = mistake["type"], mistake.get("ctx", {})
    if kind in KINDS:
        return f"Input should be {KINDS[kind]}"
    if kind == "union_tag_invalid":
        return f"{about['discriminator']} is {about['tag']!r}, not one of {about['expected_tags']}"
    if kind == "union_tag_not_found":
        return f"the key {about['discriminator']} is missing"
    if kind == "invalid_key":
        return f"the key {mistake['input']!r} is no text"
    return str(mistake["msg"]).removeprefix("Value error, ")


def _explain(error: dict[str, Any], key: list[str], node: dict[str, Any]) -> str:
    """Return one sentence about one pydantic error, given its key and the schema at that key."""
    if error["type"] == "extra_forbidden":
        allowed = sorted(node.get("properties", {}))
        wrong = str(error["loc"][-1])
        return (
            f"unknown key `{'.'.join([*key, wrong])}`{did_you_mean(wrong, allowed)}. "
            f"Allowed here: {shortlist(allowed, 20)}."
        )
    where, message = ".".join(key), error["msg"]
    if error["type"] == "missing":
        return f"the key `{where}` is missing. Add it."
    if not key or error["type"].startswith("union_tag"):
        return f"`{where}`: {message}." if key else f"{message}."
    found = repr(error["input"])
    if len(found) > LONGEST_FOUND:
        found = f"{found[:LONGEST_FOUND]}…"
    return f"`{where}`: {message}, found {found}."


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
