"""`grampus workflow`: check, apply, look at, pause and delete what was declared."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grampus.cli.noun import Noun
from grampus.cli.options import Format, Output, Server, TokenFile, Yes, confirm, connect
from grampus.cli.output import document, note, table, to_stderr
from grampus.errors import InvalidInput, Problem, UsageError

if TYPE_CHECKING:
    from grampus.sdk.answers import WorkflowInfo
    from grampus.sdk.load import Loaded

app = Noun("workflow", "What was declared: graphs of tasks.")

Files = Annotated[
    list[str], typer.Argument(metavar="FILE", help="Python or YAML files, or folders of them.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a workflow.")]


class ShowFormat(StrEnum):
    text = "text"
    yaml = "yaml"
    json = "json"


@app.callback()
def workflow() -> None:
    """What was declared: graphs of tasks."""


@app.command()
def apply(
    ctx: typer.Context,
    files: Files,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Make what files declare the newest version.

    All of them are checked before any is applied."""
    loaded = load_all(files)
    with connect(ctx, server, token_file) as client:
        answers = []
        for each in loaded:
            applied = client.apply_loaded(each)
            answers.append(applied)
            told(each, applied.version, applied.created, applied.note)
    if output is Format.json:
        document(answers)
        return
    for answer in answers:
        print(f"{answer.name} {answer.version}")


@app.command()
def validate(files: Files, output: Output = Format.text) -> None:
    """Check files; needs no server."""
    loaded = load_all(files)
    if output is Format.json:
        rows = [
            {"source": _source(x), "name": x.workflow.name, "tasks": len(x.workflow.tasks)}
            for x in loaded
        ]
        document(rows)
        return
    for each in loaded:
        count = len(each.workflow.tasks)
        tasks = "1 task" if count == 1 else f"{count} tasks"
        print(f"{_source(each)}: {each.workflow.name}, {tasks}, is valid")


@app.command("list")
def list_(
    ctx: typer.Context,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """List workflows by name."""
    from grampus.cli.output import ago
    from grampus.clock import SystemClock

    with connect(ctx, server, token_file) as client:
        found = list(client.workflows())
    if output is Format.json:
        document(found)
        return
    if not found:
        note("there are no workflows yet: grampus workflow apply FILE")
        return
    now = SystemClock().now()
    rows = []
    for each in found:
        active, tasks = str(each.active_runs), str(len(each.definition.get("tasks", ())))
        state = "PAUSED" if each.paused else "ACTIVE"
        schedule = schedule_text(each.definition.get("schedule"))
        applied = ago(each.applied_at, now)
        rows.append((each.name, str(each.version), state, tasks, active, applied, schedule))
    head = ("NAME", "VERSION", "STATE", "TASKS", "ACTIVE RUNS", "APPLIED", "SCHEDULE")
    table(head, rows)


@app.command()
def show(
    ctx: typer.Context,
    name: Name,
    version: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="An older version than the newest."),
    ] = None,
    output: Annotated[
        ShowFormat, typer.Option("-o", "--output", help="How data is printed.")
    ] = ShowFormat.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Show a workflow.

    `-o yaml` prints a file that declares the same."""
    with connect(ctx, server, token_file) as client:
        info = client.workflow(name, version)
    if output is ShowFormat.json:
        document(info)
    elif output is ShowFormat.yaml:
        from grampus.sdk.load import to_yaml

        print(to_yaml(definition_of(info)), end="")
    else:
        _print(info)


@app.command()
def pause(
    ctx: typer.Context, name: Name, server: Server = None, token_file: TokenFile = None
) -> None:
    """Hold new runs back.

    They wait as QUEUED; runs under way go on."""
    with connect(ctx, server, token_file) as client:
        client.pause_workflow(name)
    note(f"{name} is paused; go on with: grampus workflow resume {name}")


@app.command()
def resume(
    ctx: typer.Context, name: Name, server: Server = None, token_file: TokenFile = None
) -> None:
    """Let the runs of a paused workflow start."""
    with connect(ctx, server, token_file) as client:
        client.resume_workflow(name)
    note(f"{name} takes runs again")


@app.command()
def delete(
    ctx: typer.Context,
    name: Name,
    yes: Yes = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Delete a workflow and its versions.

    Its finished runs stay; active ones forbid it."""
    confirm(f"Delete workflow {name} with all its versions?", yes)
    with connect(ctx, server, token_file) as client:
        client.delete_workflow(name)
    note(f"{name} is deleted")


def load_all(files: list[str]) -> list[Loaded]:
    """What all files declare. Raises InvalidInput with the problems of all of them."""
    from grampus.sdk.load import load

    loaded: list[Loaded] = []
    problems: list[Problem] = []
    if "" in files:
        raise UsageError("the name of a file is empty")
    for path in dict.fromkeys(map(Path, files)):
        try:
            # What the user's module writes while it is read is no data of ours.
            with to_stderr():
                loaded += load(path)
        except InvalidInput as error:
            problems += error.problems
    places: dict[str, str] = {}
    for each in loaded:
        source = _source(each)
        before = places.setdefault(each.workflow.name, source)
        if before != source:
            text = f"the workflow `{each.workflow.name}` is declared in {before} too"
            problems.append(Problem(text, source))
    if problems:
        raise InvalidInput(problems)
    return loaded


def told(loaded: Loaded, version: int, created: bool, notice: str) -> None:
    """Says what became of an apply."""
    name = loaded.workflow.name
    what = f"is version {version} now" if created else f"is unchanged (version {version})"
    note(f"{name} {what}")
    if notice:
        note(f"note: {notice}")


def definition_of(info: WorkflowInfo) -> Any:
    """The declared workflow as a value. Raises ProtocolError."""
    import msgspec

    from grampus.errors import ProtocolError
    from grampus.model.workflow import read_workflow

    try:
        return read_workflow(msgspec.json.encode(info.definition))
    except msgspec.ValidationError as error:
        raise ProtocolError(f"workflow {info.name} is from a newer Grampus: {error}") from error


def schedule_text(schedule: dict[str, Any] | None) -> str:
    if not schedule:
        return ""
    from grampus.model.duration import format_duration

    every = schedule.get("every")
    when = f"every {format_duration(every)}" if every else str(schedule.get("cron"))
    return f"{when} {schedule.get('tz', 'UTC')}"


def _source(loaded: Loaded) -> str:
    from grampus.sdk.trace import shown

    return shown(str(loaded.source))


def _print(info: WorkflowInfo) -> None:
    spec = info.definition
    print(f"workflow  {info.name}, version {info.version}{', PAUSED' if info.paused else ''}")
    if spec.get("description"):
        print(f"          {spec['description']}")
    if spec.get("schedule"):
        print(f"schedule  {schedule_text(spec['schedule'])}")
    print(f"runs      {info.active_runs} active")
    for param in spec.get("params", ()):
        default = "required" if param.get("required") else f"default {param.get('default')!r}"
        print(f"param     {param['name']}: {param.get('type', 'str')}, {default}")
    print()
    rows = []
    for task in spec.get("tasks", ()):
        retry = str(task.get("retry", {}).get("max", 0))
        after = ", ".join(task.get("after", ()))
        rows.append((task["name"], task["action"]["type"], retry, _lease(task), after))
    table(("TASK", "KIND", "RETRIES", "LEASE", "AFTER"), rows)


def _lease(task: dict[str, Any]) -> str:
    from grampus.model.duration import format_duration
    from grampus.model.lease import KEEP, lease_of

    lease = lease_of(task.get("lease"))
    return "keep" if lease == KEEP else format_duration(lease)
