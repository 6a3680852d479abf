"""Python functions: imports `module:function` from the bundle and calls it with its arguments."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Mapping
from typing import Any

from grampus.model.template import evaluate
from grampus.model.workflow import Python
from grampus.tasks.failure import TaskFailure


def run(action: Python, scope: Mapping[str, Any]) -> Any:
    """What the function returns, awaited if need be. Raises what the function raises."""
    return call(action.call, evaluate(action.args, scope))


def call(name: str, arguments: Mapping[str, Any]) -> Any:
    """`run` of the function of that name with these arguments."""
    result = find(name)(**arguments)
    if isinstance(result, types.CoroutineType):
        import asyncio

        return asyncio.run(result)
    return result


def find(call: str) -> Any:
    """The object that `module:name.name` names. A `@task` object is itself callable."""
    module_name, colon, path = call.partition(":")
    if not (module_name and colon and path):
        raise TaskFailure(f"{call!r} is no `module:function`")
    try:
        # A warm attempt has it in memory: the way through the import costs it copies of pages.
        found: Any = sys.modules.get(module_name) or importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise TaskFailure(
            f"there is no module {error.name!r}: it is neither in the bundle nor installed",
            ("ModuleNotFoundError", "ImportError", "Exception"),
        ) from None
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise TaskFailure(
                f"module {module_name!r} ({getattr(found, '__file__', '?')}) has no {name!r}",
                ("AttributeError", "Exception"),
            ) from None
    if not callable(found):
        raise TaskFailure(f"{call!r} is a {type(found).__name__}, which cannot be called")
    return found
