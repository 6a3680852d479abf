"""The params of a run: text from a command line to values, and values to a complete, checked set.

Rule: what a run sees is plain JSON, the same whether it came from a flag, from HTTP or from a
default. A date is its ISO text. Types are strict: a bool is no int, "3" is no int; an int will do
for a float.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from grampus.errors import InvalidInput, Problem
from grampus.model.json_value import json_fault
from grampus.model.spelling import nearest
from grampus.model.template import TemplateError, evaluate, is_template, render
from grampus.model.workflow import Param, ParamType

#: All params of a run as JSON, in bytes.
PARAMS_LIMIT = 64 * 1024

ALLOWED: dict[ParamType, str] = {
    "str": "text",
    "int": "a whole number of 64 bits",
    "float": "a finite number",
    "bool": "true or false",
    "date": "a date such as 2026-11-21",
    "list": "a list",
    "json": "a JSON value",
}
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)


def type_fault(kind: ParamType, value: object) -> str | None:
    """Why `value` is not of type `kind`, or None when it is."""
    fault = json_fault(value)
    if fault:
        return fault
    match kind:
        case "str":
            right = isinstance(value, str)
        case "int":
            right = isinstance(value, int) and not isinstance(value, bool)
        case "float":
            right = isinstance(value, int | float) and not isinstance(value, bool)
        case "bool":
            right = isinstance(value, bool)
        case "list":
            right = isinstance(value, list | tuple)
        case "date":
            right = isinstance(value, str) and _is_date(value)
        case "json":
            right = True
    return None if right else f"not of type {kind}"


def _is_date(text: str) -> bool:
    if not _DATE.match(text):
        return False
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def parse_text(param: Param, text: str) -> Any:
    """The value of `-p name=text`. Raises ValueError that says what is allowed.

    A bool is true/false, yes/no or 1/0; a list is a JSON array or texts separated by commas.
    """
    value: Any = text
    try:
        match param.type:
            case "int":
                value = int(text) if text.strip().lstrip("+-").isdecimal() else text
            case "float":
                value = float(text)
            case "bool":
                value = _WORDS.get(text.strip().lower(), text)
            case "date":
                value = text.strip()
            case "json":
                value = msgspec.json.decode(text)
            case "list":
                value = _parse_list(text)
    except (ValueError, RecursionError, UnicodeError):
        value = None if param.type == "json" else text
        if param.type == "json":
            raise ValueError(f"{text[:80]!r} is not JSON") from None
    if type_fault(param.type, value):
        raise ValueError(f"{text[:80]!r} is not {ALLOWED[param.type]}")
    return value


def _parse_list(text: str) -> Any:
    if text.lstrip().startswith("["):
        return msgspec.json.decode(text)
    return [part.strip() for part in text.split(",")] if text.strip() else []


def default_of(param: Param, tick: Mapping[str, Any]) -> Any:
    """The default of `param` at a tick. Raises ValueError when it is not of the param's type.

    A template is text, read as `parse_text` reads it; in a list or JSON default, templates are
    resolved where they stand.
    """
    default, scope = param.default, {"tick": tick}
    if isinstance(default, str) and is_template(default) and param.type != "json":
        return parse_text(param, render(default, scope, quote=False))
    value = evaluate(default, scope)
    fault = type_fault(param.type, value)
    if fault:
        raise ValueError(fault)
    return value


def resolve(
    params: Sequence[Param], given: Mapping[str, Any], tick_scope: Mapping[str, Any]
) -> dict[str, Any]:
    """Every param with its value, in declaration order.

    Raises InvalidInput with every problem: unknown names, missing ones, wrong types, too large.
    """
    problems: list[Problem] = []
    known = [param.name for param in params]
    for name in given:
        if name not in known:
            text = f"unknown param `{name}`{nearest(name, known)}"
            problems.append(_problem(name, text, allowed=", ".join(known) or "no params"))
    values: dict[str, Any] = {}
    for param in params:
        if param.name in given:
            value = given[param.name]
            if fault := type_fault(param.type, value):
                found, allowed = repr(value)[:80], ALLOWED[param.type]
                problems.append(_problem(param.name, f"{fault}", found=found, allowed=allowed))
            elif param.type == "float":
                value = float(value)
            values[param.name] = list(value) if isinstance(value, tuple) else value
        elif param.required:
            text = "is missing, and has no default"
            problems.append(_problem(param.name, text, allowed=ALLOWED[param.type]))
        else:
            try:
                values[param.name] = default_of(param, tick_scope)
            except (TemplateError, ValueError) as error:
                problems.append(_problem(param.name, f"the default cannot be used: {error}"))
    if not problems and (size := len(msgspec.json.encode(values))) > PARAMS_LIMIT:
        text = "the params are too large; hand over a path or a URL instead"
        found, allowed = f"{size} bytes", f"{PARAMS_LIMIT} bytes"
        problems.append(Problem(text, field="params", found=found, allowed=allowed))
    if problems:
        raise InvalidInput(problems)
    return values


def _problem(
    name: str, message: str, found: str | None = None, allowed: str | None = None
) -> Problem:
    return Problem(message, field=f"params.{name}", found=found, allowed=allowed)
