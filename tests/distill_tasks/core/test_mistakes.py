"""Every wrong value at every key of the configuration is refused in our own words."""

import re
from datetime import date

import pytest
from pydantic import ValidationError

from distill_tasks.config import DistillConfig
from distill_tasks.core.errors import InputError
from distill_tasks.core.mistakes import PATTERNS, WANTED, explain_first

SCHEMA = DistillConfig.model_json_schema()
PLAIN = {
    "name": "plain",
    "data": {"train": "train.csv", "held_out": "held_out.csv"},
    "teacher": {"kind": "finetune", "base": "some/folder"},
    "students": [{"family": "layers", "layers": 2}],
    "registry": {"model": "plain"},
}
WRONG = (
    *(None, True, 5, -1, 10**20, 1.5, float("nan"), "", "word", "x" * 300, "9" * 5000, b"\xff"),
    *(date(2026, 11, 26), [], ["word"], [-1], [[1]], {}, {"a": 3}, {1: 2}, {"low": -5, "high": 9}),
)
JARGON = re.compile(
    r"Input|[Tt]ag\b|valid |instance|dictionary|tuple|integer|discriminat|None|True|False"
    r"|datetime|pattern|permitted|Field|\berror|greater|less than|\{gt|Config\b|parse"
)
"""Words of pydantic and of Python that no user should have to know."""


def resolve(node):
    return SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def example(node):
    """Return a value of a node that is taken, or near it."""
    node = resolve(node)
    for key in ("const", "default"):
        if key in node:
            return node[key]
    if "enum" in node:
        return node["enum"][0]
    if "properties" in node:
        return {key: example(node["properties"][key]) for key in node.get("required", ())}
    if options := [*node.get("anyOf", ()), *node.get("oneOf", ())]:
        return example(options[0])
    return {"string": "word", "integer": 3, "number": 0.5, "array": []}.get(node.get("type"))


def list_places(node, depth=0):
    """Yield the keys to every place below a node, with the settings that stand around it."""
    node = resolve(node)
    if depth > 6:
        return
    for key, inner in node.get("properties", {}).items():
        beside = {other: example(node["properties"][other]) for other in node.get("required", ())}
        yield (key,), beside
        for place, inside in list_places(inner, depth + 1):
            yield (key, *place), beside | {key: inside}
    if "items" in node:
        for place, inside in list_places(node["items"], depth + 1):
            yield (0, *place), [inside]
    for option in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from list_places(option, depth + 1)


def put(settings, place, value):
    """Return settings with a value at a place."""
    key, *rest = place
    copy = list(settings) if isinstance(settings, list) else dict(settings)
    copy[key] = put(copy[key], rest, value) if rest else value
    return copy


def refuse(written):
    """Return what the user reads of wrong settings; None where they are taken."""
    try:
        DistillConfig.model_validate(written)
    except ValidationError as error:
        mistakes = [dict(found) for found in error.errors()]
        kinds.update(mistake["type"] for mistake in mistakes)
        return explain_first(mistakes, written, SCHEMA)
    except InputError as error:
        return str(error)
    return None


kinds: set[str] = set()


def test_no_word_of_pydantic_reaches_the_user_whatever_is_written_wherever():
    places = dict(list_places(SCHEMA))
    assert len(places) > 100
    said = [
        refuse(PLAIN | put(PLAIN | beside, place, value))
        for place, beside in places.items()
        for value in (*WRONG, {**example_of(place, beside), "bogus": 1})
    ]
    refused = [message for message in said if message is not None]
    assert len(refused) > 1000
    assert not [message for message in refused if JARGON.search(message)]
    assert not [message for message in refused if len(message) > 600 or "\n" in message]
    known = WANTED.keys() | {"string_pattern_mismatch", "value_error", "missing", "invalid_key"}
    assert kinds <= known | {"extra_forbidden", "union_tag_invalid", "union_tag_not_found"}


def example_of(place, beside):
    """Return the settings that stand at a place, if it holds settings."""
    for key in place[:-1]:
        beside = beside[key]
    found = beside.get(place[-1]) if isinstance(beside, dict) else None
    return found if isinstance(found, dict) else {}


def list_patterns(node):
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        for inner in node.values():
            yield from list_patterns(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from list_patterns(inner)


def test_every_pattern_of_the_schema_has_words():
    assert set(list_patterns(SCHEMA)) == PATTERNS.keys()


PLAIN_SAVED = {"kind": "saved", "path": "answers.parquet"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher": {"kind": "finetun", "base": "x"}}, "unknown kind 'finetun' (did you mean 'fi"),
        ({"students": [{"family": "layer"}]}, "unknown family 'layer' (did you mean 'layers'?)"),
        ({"students": [{"family": "distilbert"}]}, "Allowed: bag_of_words, layers, pretrained, st"),
        ({"teacher": {"kind": None}}, "the key `teacher.kind` is missing. Allowed: api, calla"),
        (
            {
                "teacher": {
                    "kind": "ensemble",
                    "members": [{"teacher": {"kind": "saved", "path": "x"}}],
                }
            },
            "`teacher.members`: must be a list of at least 2 items, found [",
        ),
        ({"problem": "multilabel"}, "found 'multilabel' (did you mean 'multi_label'?)."),
        ({"loss": {"terms": {"k": 1}}}, "unknown key `loss.terms.k` (did you mean 'kl'?)."),
        ({"loss": {"temperature": "atuo"}}, "must be a number or 'auto', found 'atuo' (did you"),
        ({"select": {"min_class_recall": {"a": 3}}}, "must be at most 1, found 3."),
        ({"select": {"min_class_recall": {1: 0.5}}}, "the key 1 is no text. Put it in quotes."),
        ({"select": {"min_class_recall": "x"}}, "must be a number or keys with values, found 'x'"),
        ({"seed": 2**31}, "`seed`: must be below 2,147,483,648, found 2147483648."),
        ({"registry": {"model": None}}, "must be text, in quotes if it looks like something el"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_allowed(changes, said):
    assert said in refuse(PLAIN | changes)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"dimensions": {"low": -5, "high": 9}}, "dimensions`: must be above 0, found -5."),
        ({"dimensions": ["a"]}, "dimensions`: must be a whole number, found 'a'."),
        ({"dimensions": []}, "dimensions`: must be a list that is not empty, found []."),
        ({"epochs": {"low": 3}}, "the key `search.optuna.spaces.0.epochs.high` is missing."),
    ],
)
def test_a_wrong_search_space_is_refused_in_the_same_words(space, said):
    optuna = {"trials": 2, "spaces": [{"family": "static", **space}]}
    assert said in refuse(PLAIN | {"search": {"optuna": optuna}})
