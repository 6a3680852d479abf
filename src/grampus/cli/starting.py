"""What `run start` is given: the name of a workflow or a file, and values for its params.

Rule: what cannot be meant is said before anything is stored, with what may have been meant. Texts
become values of their param's type, and all that is wrong with them is told at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from grampus.errors import InvalidInput, NotFound, Problem, UsageError

if TYPE_CHECKING:
    from grampus.model.workflow import Param, Workflow
    from grampus.sdk.client import Client


def workflow_file(what: str) -> Any:
    """The workflow of FILE or FILE:NAME; None when `what` is the name of a workflow."""
    path, colon, name = what.rpartition(":") if ":" in what else (what, "", "")
    if Path(what).is_file():
        path, colon, name = what, "", ""
    if not (path.endswith((".py", ".yaml", ".yml")) or "/" in path):
        return None
    from grampus.cli.workflow import load_all

    loaded = load_all([path])
    names = [each.workflow.name for each in loaded]
    if colon:
        loaded = [each for each in loaded if each.workflow.name == name]
    if len(loaded) == 1:
        return loaded[0]
    listed = ", ".join(names)
    if colon:
        raise InvalidInput([Problem(f"there is no workflow `{name}` in it", path, allowed=listed)])
    raise UsageError(f"{path} declares {listed or 'no workflow'}: say which one with {path}:NAME")


def pairs_of(texts: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"-p takes KEY=VALUE, not {text!r}")
        if name.strip() in pairs:
            raise UsageError(f"-p {name.strip()} is given twice")
        pairs[name.strip()] = value
    return pairs


def meant_workflow(client: Client, name: str, error: NotFound) -> NotFound:
    """`error`, and what may have been meant by the name of a workflow that is not there."""
    from grampus.model.spelling import nearest

    files = [f"{name}{suffix}" for suffix in (".py", ".yaml", ".yml")]
    file = next((file for file in files if Path(file).is_file()), None)
    if file is not None:
        return NotFound(f"{error} (here is a file {file}: grampus run start {file})")
    return NotFound(f"{error}{nearest(name, [each.name for each in client.workflows()])}")


def definition(client: Client, name: str, version: int | None) -> Workflow:
    from grampus.cli.workflow import definition_of

    try:
        workflow: Workflow = definition_of(client.workflow(name, version))
    except NotFound as error:
        raise meant_workflow(client, name, error) from error
    return workflow


def values_for_new(workflow: Workflow, texts: dict[str, str]) -> dict[str, Any]:
    """The values of `-p` for a workflow that is yet to be applied. Raises InvalidInput."""
    values = values_for(workflow, texts)
    missing = [
        Problem("is missing, and has no default", field=f"-p {param.name}", allowed=param.type)
        for param in workflow.params
        if param.required and param.name not in values
    ]
    if missing:
        raise InvalidInput(missing)
    return values


def values_for(workflow: Workflow, texts: dict[str, str]) -> dict[str, Any]:
    """The values of `-p`, each read as its param's type. Raises InvalidInput with all problems."""
    from grampus.model.params import parse_text
    from grampus.model.spelling import nearest

    declared: dict[str, Param] = {param.name: param for param in workflow.params}
    values: dict[str, Any] = {}
    problems = []
    for name, text in texts.items():
        if name not in declared:
            message = f"{workflow.name} has no param `{name}`{nearest(name, list(declared))}"
            problems.append(allowing(Problem(message, field=f"-p {name}"), list(declared)))
            continue
        try:
            values[name] = parse_text(declared[name], text)
        except ValueError as error:
            problems.append(Problem(str(error), field=f"-p {name}"))
    if problems:
        raise InvalidInput(problems)
    return values


def allowing(problem: Problem, names: list[Any]) -> Problem:
    from dataclasses import replace

    return replace(problem, allowed=", ".join(map(str, names)) or "none")
