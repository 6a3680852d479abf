"""YAML to plain values, each with its line. Bounded, and without surprises.

Rule: true/false, null, decimal integers without leading zeros, and floats are read as such;
everything else that is plain is text: dates, `yes`, `08`, `1:30`, `.inf`. A key that comes twice is
an error.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

from grampus.errors import Problem

#: Values in one file, those reached through aliases counted each time.
NODES_LIMIT = 500_000
DEPTH_LIMIT = 60

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]")
_TAG = "tag:yaml.org,2002:"


class _Loader(_BASE):  # type: ignore[misc]
    """Resolves nothing by itself: plain scalars stay texts."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


class Document:
    """One document: its value, and where each field of it is."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.value: Any = None
        #: Field path → (file, line).
        self.places: dict[str, tuple[str | None, int | None]] = {}
        self.problems: list[Problem] = []
        self._count = 0

    def read(self, node: yaml.Node, path: str = "", depth: int = 0) -> Any:
        line = node.start_mark.line + 1
        self.places.setdefault(path, (self.file, line))
        self._count += 1
        if self._count > NODES_LIMIT or depth > DEPTH_LIMIT:
            if not self.problems or "too large" not in self.problems[-1].message:
                text = "the document is too large, too deep, or an alias contains itself"
                self.problems.append(Problem(text, self.file, line))
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            if node.tag != _TAG + "seq":
                self._tag(node, path)
            return [
                self.read(item, f"{path}[{index}]", depth + 1)
                for index, item in enumerate(node.value)
            ]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        if node.tag != _TAG + "map":
            self._tag(node, path)
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._wrong("a key has to be text", path, line)
                continue
            key = key_node.value
            field = f"{path}.{key}" if path else key
            if key in found:
                self._wrong(f"`{key}` is there twice (first in line {lines[key]})", field, line)
                continue
            self.places[field] = (self.file, line)
            lines[key] = line
            found[key] = self.read(value_node, field, depth + 1)
        return found

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        text = str(node.value)
        tag = node.tag.removeprefix(_TAG)
        if node.tag not in (_TAG + "str", "!") or not isinstance(node, yaml.ScalarNode):
            self._tag(node, path)
            return text
        if node.style or (tag == "str" and node.tag == "!"):
            return text
        return plain(text)

    def _tag(self, node: yaml.Node, path: str) -> None:
        text = "tags are not part of these files; write the value itself"
        self._wrong(text, path, node.start_mark.line + 1, node.tag)

    def _wrong(self, text: str, field: str, line: int, found: str | None = None) -> None:
        self.problems.append(Problem(text, self.file, line, field or None, found))


def plain(text: str) -> Any:
    """The value of an unquoted scalar."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.match(text) and len(text) < 40:
        return int(text)
    if _FLOAT.match(text) and not _LEADING_ZERO.match(text) and len(text) < 400:
        value = float(text)
        return value if abs(value) < float("inf") else text
    return text


def read_documents(text: str, file: str) -> tuple[list[Document], list[Problem]]:
    """Every document of `text` that is not empty, and what keeps it from being read at all."""
    documents = []
    try:
        for node in yaml.compose_all(text, Loader=_Loader):
            document = Document(file)
            document.value = document.read(node)
            if document.value is not None or document.problems:
                documents.append(document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        parts = [part for part in (error.context, error.problem) if part]
        last = len(text.rstrip("\n").split("\n"))
        line = min(mark.line + 1, last) if mark else None
        return documents, [Problem(f"no valid YAML: {', '.join(parts)}", file, line)]
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        return documents, [Problem(f"no valid YAML: {reason}", file)]
    except RecursionError:
        return documents, [Problem("no valid YAML: nested too deeply", file)]
    return documents, []
