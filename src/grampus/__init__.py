"""Grampus: workflows on a self-contained cluster. What users import is here; see `__all__`."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # `typing` would be most of the cost of this import
if TYPE_CHECKING:
    from grampus.errors import GrampusError, InvalidInput
    from grampus.sdk.calls import http, shell, sleep, sql
    from grampus.sdk.client import Client
    from grampus.sdk.context import Context, context
    from grampus.sdk.declare import Retry, task
    from grampus.sdk.flow import cron, every, workflow

__all__ = [
    "Client",
    "Context",
    "GrampusError",
    "InvalidInput",
    "Retry",
    "context",
    "cron",
    "every",
    "http",
    "shell",
    "sleep",
    "sql",
    "task",
    "workflow",
]

_WHERE = {
    "Client": "grampus.sdk.client",
    "Context": "grampus.sdk.context",
    "GrampusError": "grampus.errors",
    "InvalidInput": "grampus.errors",
    "Retry": "grampus.sdk.declare",
    "context": "grampus.sdk.context",
    "cron": "grampus.sdk.flow",
    "every": "grampus.sdk.flow",
    "http": "grampus.sdk.calls",
    "shell": "grampus.sdk.calls",
    "sleep": "grampus.sdk.calls",
    "sql": "grampus.sdk.calls",
    "task": "grampus.sdk.declare",
    "workflow": "grampus.sdk.flow",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used, so that `import grampus` costs nothing."""
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(where), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
