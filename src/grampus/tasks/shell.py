"""Shell commands, by `/bin/sh -c`. Simple ones are an argv at once, the others by the runner."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

from grampus.model.template import render
from grampus.model.workflow import Shell


def argv(command: str) -> list[str]:
    return ["/bin/sh", "-c", command]


def run(action: Shell, scope: Mapping[str, Any]) -> NoReturn:
    """Becomes the command; does not return. Raises TemplateError."""
    command = render(action.command, scope, quote=True)
    os.environ.pop("GRAMPUS_SPEC", None)
    os.execv("/bin/sh", argv(command))
