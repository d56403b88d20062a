"""Reading YAML strictly: repeated keys and aliases that expand without bound are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from distill_tasks.core.errors import InputError

MOST_NODES = 100_000
"""A file with more keys and values than this, with its aliases expanded, is refused."""


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds, as plain data.

    Raises InputError, with the line if there is one, for a missing or unreadable file, broken YAML,
    a repeated key, and nesting or aliases that go too deep.
    """
    try:
        return _parse(path.read_text(encoding="utf-8"), str(path), "YAML file")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist. Give the path of a distill.yaml.") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path!s:.200} is no YAML file: {' '.join(str(error).split())}") from None


def parse_yaml(text: str, source: str) -> Any:
    """Return what a text in YAML holds, as plain data; raises InputError as `read_yaml` does."""
    return _parse(text, source, "YAML")


def _parse(text: str, source: str, form: str) -> Any:
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506  # it is safe
    except RecursionError:
        raise InputError(f"{source} is nested too deeply to be read.") from None
    except yaml.MarkedYAMLError as error:
        raise InputError(f"{source} is no {form}: {_say(error)}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{source:.200} is no {form}: {' '.join(str(error).split())}") from None


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses repeated keys and aliases that expand too far."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.sizes: dict[Node, int] = {}
        """How many nodes each completed node contains, with its aliases expanded."""

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        assert node is not None
        if is_alias and node not in self.sizes:
            raise yaml.MarkedYAMLError(None, None, "it holds itself by an alias", node.start_mark)
        if not is_alias:
            self.sizes[node] = 1 + sum(self.sizes[child] for child in _list_children(node))
        if self.sizes[node] > MOST_NODES:
            reason = f"more than {MOST_NODES:,} values, its aliases written out"
            raise yaml.MarkedYAMLError(None, None, reason, node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, ScalarNode)):
            name = key.tag, key.value
            if name in lines:
                reason = f"the key {key.value!r} stands here and in line {lines[name]}; keep one"
                raise yaml.MarkedYAMLError(None, None, reason, key.start_mark)
            lines[name] = key.start_mark.line + 1
        return node


def _list_children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return [] if isinstance(node, ScalarNode) else node.value


def _say(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = "" if mark is None else f"line {mark.line + 1}: "
    return where + " ".join(str(error.problem).split())
