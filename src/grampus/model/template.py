"""Texts with values in them: `{{ params.day }}`, `{{ tasks.extract.output.rows }}`.

Rule: the author's text is trusted, the values never are. In a shell command each value is quoted
for the place where it stands, unless the author writes `| raw`. Plain references are resolved here;
anything richer is left to `jinja`, which is imported only then. A scope is `{"params": {...},
"tasks": {name: {"output": value}}, "tick": tick_scope(...), "run": {"id", "workflow", "version"}}`.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from msgspec import Struct

from grampus.model.quoting import Context, ShellText, UnquotableError, quote
from grampus.model.spelling import nearest

ROOTS = ("params", "tasks", "tick", "run")
TICK_FIELDS = tuple(
    "date time iso timestamp ms year month day hour minute second weekday yesterday tomorrow"
    " tz".split()
)
RUN_FIELDS = ("id", "workflow", "version")
#: No text becomes longer than this, in characters.
OUTPUT_LIMIT = 1024 * 1024

_SIMPLE = re.compile(
    r"\{\{\s*((?:params|tasks|tick|run)"
    r"(?:\.[A-Za-z_][A-Za-z0-9_]*|\[\d{1,9}\]|\[\"[^\"\\\r\n]*\"\]|\['[^'\\\r\n]*'\])*)"
    r"\s*(\|\s*raw\s*)?\}\}"
)
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d+)\]|\[[\"']([^\r\n]*?)[\"']\]")
_MARKS = re.compile(r"\{[{%#]")
_ESCAPED = re.compile(r"\{\{|\{%|\{#|\{?\r")
_NEWLINE = re.compile(r"\r\n|\r")

Path = tuple[str | int, ...]


class TemplateError(ValueError):
    """A template that cannot be read, or that has no value in its scope."""

    def __init__(self, message: str, line: int | None = None) -> None:
        #: One sentence, without the place.
        self.message = message
        #: 1-based, within the text.
        self.line = line
        super().__init__(message if line is None else f"{message} (line {line} of the template)")


class References(Struct, frozen=True):
    """The names that templates mention, sorted."""

    params: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


class Raw(str):
    """Text that the author asked to be inserted as it is."""

    __slots__ = ()


class Insertion(Struct, frozen=True):
    """One plain reference in a simple template."""

    path: Path
    raw: bool
    line: int


def is_template(text: str) -> bool:
    """Whether `text` has a mark of a template: `{{`, `{%` or `{#`."""
    return _MARKS.search(text) is not None


def is_simple(text: str) -> bool:
    """Whether `render_simple` can do `text`: only text and plain references, perhaps `| raw`."""
    return _parse_simple(text) is not None


@lru_cache(maxsize=2048)
def _parse_simple(text: str) -> tuple[str | Insertion, ...] | None:
    parts: list[str | Insertion] = []
    at, end = 0, len(text)
    for match in _SIMPLE.finditer(text):
        literal = text[at : match.start()]
        if _MARKS.search(literal) or literal.endswith("{"):
            return None
        parts.append(_NEWLINE.sub("\n", literal))
        line = text.count("\n", 0, match.start()) + 1
        parts.append(Insertion(_read_path(match[1]), match[2] is not None, line))
        at = match.end()
    if _MARKS.search(text, at):
        return None
    literal = text[at:end]
    parts.append(_NEWLINE.sub("\n", literal) if parts else literal)
    return tuple(part for part in parts if part != "")


def _read_path(text: str) -> Path:
    root = re.match(r"\w+", text)
    assert root is not None
    steps: list[str | int] = [root[0]]
    for match in _STEP.finditer(text, root.end()):
        name, index, key = match.groups()
        steps += [name or (int(index) if index else key)]
    return tuple(steps)


def check_path(path: Path) -> None:
    """Raises TemplateError when a path does not name a param, a task's output, or a known field."""
    root, rest = path[0], path[1:]
    if root == "tasks" and (len(rest) < 2 or rest[1] != "output"):
        name = rest[0] if rest else "NAME"
        raise TemplateError(f"of a task only its output can be used: write tasks.{name}.output")
    fields = {"tick": TICK_FIELDS, "run": RUN_FIELDS}.get(str(root))
    if fields is None:
        if rest and not isinstance(rest[0], str):
            raise TemplateError(f"`{root}` is followed by a name, not by [{rest[0]}]")
    elif not rest or rest[0] not in fields:
        name = str(rest[0]) if rest else ""
        hint = nearest(name, fields)
        raise TemplateError(f"`{root}` has no `{name}`{hint}; it has {', '.join(fields)}")


def references(text: str) -> References:
    """Params and tasks that `text` mentions. Raises TemplateError if it is no valid template."""
    parts = _parse_simple(text)
    if parts is None:
        from grampus.model import jinja

        return jinja.references(text)
    params, tasks = set(), set()
    for part in parts:
        if isinstance(part, Insertion):
            try:
                check_path(part.path)
            except TemplateError as error:
                raise TemplateError(error.message, part.line) from None
            if len(part.path) > 1:
                if part.path[0] == "params":
                    params.add(str(part.path[1]))
                elif part.path[0] == "tasks":
                    tasks.add(str(part.path[1]))
    return References(tuple(sorted(params)), tuple(sorted(tasks)))


def references_in(value: object) -> References:
    """`references` of every string in a JSON value, keys of objects excluded."""
    params: set[str] = set()
    tasks: set[str] = set()
    todo = [value]
    while todo:
        match todo.pop():
            case str(text):
                if is_template(text):
                    found = references(text)
                    params.update(found.params)
                    tasks.update(found.tasks)
            case dict(items):
                todo.extend(items.values())
            case list(items) | tuple(items):
                todo.extend(items)
    return References(tuple(sorted(params)), tuple(sorted(tasks)))


def may_mention(value: object, word: str) -> bool:
    """Whether a template in a JSON value has this word in it, be it as a name or by chance."""
    match value:
        case str(text):
            return word in text and is_template(text)
        case dict(items):
            return any(may_mention(item, word) for item in items.values())
        case list(items) | tuple(items):
            return any(may_mention(item, word) for item in items)
    return False


def check_quoting(text: str) -> None:
    """Raises TemplateError where a value in a shell command cannot be quoted (see `quoting`)."""
    parts = _parse_simple(text)
    if parts is None:
        from grampus.model import jinja

        jinja.check_quoting(text)
    else:
        _contexts(parts)


def check_raw(text: str) -> None:
    """Raises TemplateError where a value would become SQL text without the author saying so."""
    parts = _parse_simple(text)
    if parts is None:
        from grampus.model import jinja

        lines = jinja.unmarked_lines(text)
    else:
        lines = [part.line for part in parts if isinstance(part, Insertion) and not part.raw]
    if lines:
        advice = "give it as `params:` and write :name, or add `| raw` if it is trusted"
        raise TemplateError(f"a value must not become SQL text: {advice}", lines[0])


def _contexts(parts: tuple[str | Insertion, ...]) -> list[Context | None]:
    shell, contexts = ShellText(), list[Context | None]()
    for part in parts:
        if isinstance(part, str):
            shell.feed(part)
        elif part.raw:
            shell.insert_raw()
            contexts.append(None)
        else:
            try:
                contexts.append(shell.insert())
            except UnquotableError as error:
                raise TemplateError(str(error), part.line) from None
    return contexts


@lru_cache(maxsize=2048)
def _cached_contexts(text: str) -> list[Context | None]:
    return _contexts(_parse_simple(text) or ())


def render(text: str, scope: Mapping[str, Any], quote: bool) -> str:
    """`text` with its values in it; with `quote` each one is quoted for /bin/sh, unless `| raw`.

    A text is inserted as it is, None as nothing, bools as true/false, lists and objects as JSON.
    Raises TemplateError: bad syntax, nothing there to insert, longer than OUTPUT_LIMIT.
    """
    if not is_template(text):
        return text
    if _parse_simple(text) is not None:
        return render_simple(text, scope, quote)
    from grampus.model import jinja

    return jinja.render(text, scope, quote)


def render_simple(text: str, scope: Mapping[str, Any], quote: bool) -> str:
    """`render` for a simple template, without Jinja."""
    parts = _parse_simple(text)
    if parts is None:
        raise TemplateError("this template has more than plain references")
    contexts = iter(_cached_contexts(text)) if quote else None
    done, size = [], 0
    for part in parts:
        if isinstance(part, str):
            piece = part
        else:
            piece = to_text(_resolve(part.path, scope))
            context = next(contexts) if contexts is not None else None
            if context is not None:
                piece = _quote(piece, context)
        size += len(piece)
        if size > OUTPUT_LIMIT:
            raise TemplateError(f"the text becomes longer than {OUTPUT_LIMIT} characters")
        done.append(piece)
    return "".join(done)


def _quote(text: str, context: Context) -> str:
    try:
        return quote(text, context)
    except UnquotableError as error:
        raise TemplateError(str(error)) from None


def _resolve(path: Path, scope: Mapping[str, Any]) -> Any:
    value: Any = scope
    for index, step in enumerate(path):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list | tuple | str) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            raise TemplateError(f"`{_spell(path[:index]) or 'the scope'}` has no `{step}`")
    return value


def _spell(path: Path) -> str:
    return "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" if index else step
        for index, step in enumerate(path)
    )


def to_text(value: object) -> str:
    """How a value is written into a text. Raises TemplateError for what is no JSON value."""
    match value:
        case str():
            return str.__str__(value)
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case dict() | list() | tuple():
            try:
                return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            except (TypeError, ValueError, RecursionError) as error:
                raise TemplateError(f"a value is not JSON: {error}") from None
    kind = type(value).__name__
    raise TemplateError(f"a value of type {kind} cannot be part of a text; a field of it might")


def evaluate(value: Any, scope: Mapping[str, Any]) -> Any:
    """A JSON value with its templates resolved, deep. Keys stay as they are.

    A string that is exactly one `{{ expression }}` becomes the value itself, type and all; any
    other template becomes text. Raises TemplateError.
    """
    match value:
        case str(text):
            if not is_template(text):
                return text
            parts = _parse_simple(text)
            if parts is None:
                from grampus.model import jinja

                return jinja.evaluate(text, scope)
            if len(parts) == 1 and isinstance(parts[0], Insertion):
                return _resolve(parts[0].path, scope)
            return render_simple(text, scope, False)
        case dict(items):
            return {key: evaluate(item, scope) for key, item in items.items()}
        case list(items) | tuple(items):
            return [evaluate(item, scope) for item in items]
    return value


def escape(text: str) -> str:
    """A template whose value is `text`, whatever is in it."""
    if not is_template(text):
        return text
    if "endraw" not in text and "\r" not in text:
        return "{% raw %}" + text + "{% endraw %}"
    return _ESCAPED.sub(lambda m: '{{ "' + m[0].replace("\r", "\\r") + '" | raw }}', text)


def tick_scope(ms: int, tz: str) -> dict[str, Any]:
    """What templates see as `tick`: the planned time `ms` on the calendar of `tz`."""
    import zoneinfo  # Late: warm attempts mostly do without.

    when = datetime.datetime.fromtimestamp(ms / 1000, zoneinfo.ZoneInfo(tz))
    day = datetime.timedelta(days=1)
    return {
        "date": when.date().isoformat(),
        "time": when.time().isoformat(timespec="seconds"),
        "iso": when.isoformat(timespec="milliseconds" if ms % 1000 else "seconds"),
        "timestamp": ms // 1000,
        "ms": ms,
        "year": when.year,
        "month": when.month,
        "day": when.day,
        "hour": when.hour,
        "minute": when.minute,
        "second": when.second,
        #: Monday is 1.
        "weekday": when.isoweekday(),
        "yesterday": (when.date() - day).isoformat(),
        "tomorrow": (when.date() + day).isoformat(),
        "tz": tz,
    }
