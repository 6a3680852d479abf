"""`grampus run`: start runs, look at them, wait, cancel, delete.

Logs and results are in `logs`; retry, pause and resume in `control`; why and what in `answers`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grampus.cli import answers, control, logs
from grampus.cli.noun import Noun
from grampus.cli.options import (
    Format,
    Output,
    RunArgument,
    Server,
    TokenFile,
    Yes,
    confirm,
    connect,
    meant,
)
from grampus.cli.output import ago, clean, document, ms_of, note, span, table, tell
from grampus.errors import InvalidInput, NotFound, Problem, UsageError

if TYPE_CHECKING:
    from grampus.model.workflow import Param, Workflow
    from grampus.sdk.answers import Attempt, Run, TaskRun
    from grampus.sdk.client import Client

app = Noun("run", "Executions of workflows.")


@app.callback()
def run() -> None:
    """Executions of workflows."""


@app.command()
def start(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE", help="An applied workflow, or a file to apply first (FILE:NAME)."
        ),
    ],
    param: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", metavar="KEY=VALUE", help="A param; may be repeated."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the run ends.")] = False,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The same key with the same request is the same run."),
    ] = None,
    priority: Annotated[
        int,
        typer.Option(min=-1000, max=1000, metavar="N", help="Higher starts first."),
    ] = 0,
    version: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="An older version than the newest."),
    ] = None,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Start a workflow and print the run's id.

    Exit codes with --wait: 0 succeeded, 1 failed, 5 cancelled, 130 left early (the run goes on)."""
    texts = _pairs(param or [])
    if not what:
        raise UsageError("which workflow? give its name, or a file")
    loaded = _file(what)
    if loaded is not None and version is not None:
        raise UsageError("--version is for a workflow that was applied: a file is the newest")
    with connect(ctx, server, token_file) as client:
        name = what
        params: dict[str, Any] = {}
        if loaded is not None:
            from grampus.cli.workflow import told

            # Before anything is stored: a start that is refused changes nothing.
            params = _given(loaded.workflow, texts)
            applied = client.apply_loaded(loaded)
            told(loaded, applied.version, applied.created, applied.note)
            name, version = applied.name, applied.version
        elif texts:
            params = _params(_definition(client, name, version), texts)
        try:
            started = client.submit(name, params, key=key, version=version, priority=priority)
        except NotFound as error:
            raise _meant(client, what, error) from error
        if not started.created:
            note(f"run {started.id} was started by the same request before")
        if wait:
            stay(client, started.id, None, output, tell_id=True)
        if output is Format.json:
            document(started)
        else:
            tell(started.id)
        note(f"  watch it:   grampus run wait {started.id}")
        note(f"  its logs:   grampus run logs {started.id} -f")
        note(f"  cancel it:  grampus run cancel {started.id}")


@app.command("list")
def list_(
    ctx: typer.Context,
    workflow: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only runs of this workflow.")
    ] = None,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Only runs in this state, e.g. RUNNING.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="The newest so many.")] = 20,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """List runs, newest first."""
    from grampus.clock import SystemClock
    from grampus.model.run import RunState

    if state is not None and state.upper() not in list(RunState):
        problem = Problem("there is no such state", field="--state", found=state)
        raise InvalidInput([_allowing(problem, list(RunState))])
    with connect(ctx, server, token_file) as client:
        found = list(client.runs(workflow, state and state.upper(), limit))
    if output is Format.json:
        document(found)
        return
    if not found:
        note("there are no such runs" if workflow or state else "there are no runs yet")
        return
    now = SystemClock().now()
    rows = [
        (
            each.id,
            f"{each.workflow} v{each.version}",
            str(each.state),
            _done(each),
            _lasted(each, now),
            ago(each.created, now),
            each.reason,
        )
        for each in found
    ]
    table(("ID", "WORKFLOW", "STATE", "DONE", "TOOK", "CREATED", "REASON"), rows)


@app.command()
def show(
    ctx: typer.Context,
    run: RunArgument,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Show a run and its tasks.

    With `-o json` the tasks are in `task_runs`."""
    with connect(ctx, server, token_file) as client:
        view = meant(client, run)
        tasks = client.tasks(view.id)
    if output is Format.json:
        import msgspec

        document({**msgspec.to_builtins(view), "task_runs": tasks})
        return
    _print(view, tasks)


@app.command()
def wait(
    ctx: typer.Context,
    run: RunArgument,
    timeout: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Leave after that time: seconds, or 10m, 1h30m."),
    ] = None,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Stay until a run ends.

    Exit codes: 0 succeeded, 1 failed, 5 cancelled, 130 left early."""
    limit = _timeout(timeout)
    with connect(ctx, server, token_file) as client:
        stay(client, meant(client, run).id, limit, output, tell_id=False)


@app.command()
def cancel(
    ctx: typer.Context,
    run: RunArgument,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Ask a run to stop.

    Nothing new starts; running tasks get their grace and are ended."""
    with connect(ctx, server, token_file) as client:
        view = client.cancel(meant(client, run).id)
    if output is Format.json:
        document(view)
    else:
        print(f"{view.id} {view.state}")
        if not view.final:
            note(f"  wait for its end: grampus run wait {view.id}")


@app.command()
def delete(
    ctx: typer.Context,
    run: RunArgument,
    yes: Yes = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Delete a finished run with its logs and results."""
    with connect(ctx, server, token_file) as client:
        view = meant(client, run)
        confirm(f"Delete run {view.id} of {view.workflow} with its logs and results?", yes)
        client.delete(view.id)
    note(f"{view.id} is deleted")


app.command("retry")(control.retry)
app.command("pause")(control.pause)
app.command("resume")(control.resume)
app.command("declare-lost")(control.declare_lost)
app.command("story")(answers.story)
app.command("explain")(answers.explain)
app.command("logs")(logs.logs)
app.command("result")(logs.result)


def stay(client: Client, run: str, timeout: int | None, output: Format, *, tell_id: bool) -> None:
    """Until the run ends; leaves with its exit code."""
    from grampus.cli.attend import attend, summary

    if tell_id and output is Format.text:
        tell(run)
    view = attend(client, run, timeout, whole=tell_id)
    if output is Format.json:
        document(view)
    elif not tell_id:
        tell(view.state)
    raise typer.Exit(summary(client, view))


def _file(what: str) -> Any:
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


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"-p takes KEY=VALUE, not {text!r}")
        if name.strip() in pairs:
            raise UsageError(f"-p {name.strip()} is given twice")
        pairs[name.strip()] = value
    return pairs


def _timeout(text: str | None) -> int | None:
    """`--timeout` in ms: seconds, or a duration as everywhere. Raises InvalidInput."""
    from grampus.model.duration import ALLOWED, parse_duration

    if text is None:
        return None
    try:
        number = text.strip().replace(".", "", 1)
        seconds = number.isascii() and number.isdigit()
        ms = parse_duration(float(text) if seconds else text)
        if ms < 1:
            raise ValueError
    except ValueError:
        problem = Problem("cannot be used", None, None, "--timeout", repr(text), ALLOWED)
        raise InvalidInput([problem]) from None
    return ms


def _meant(client: Client, name: str, error: NotFound) -> NotFound:
    """`error`, and what may have been meant by the name of a workflow that is not there."""
    from grampus.model.spelling import nearest

    files = [f"{name}{suffix}" for suffix in (".py", ".yaml", ".yml")]
    file = next((file for file in files if Path(file).is_file()), None)
    if file is not None:
        return NotFound(f"{error} (here is a file {file}: grampus run start {file})")
    return NotFound(f"{error}{nearest(name, [each.name for each in client.workflows()])}")


def _definition(client: Client, name: str, version: int | None) -> Workflow:
    from grampus.cli.workflow import definition_of

    try:
        workflow: Workflow = definition_of(client.workflow(name, version))
    except NotFound as error:
        raise _meant(client, name, error) from error
    return workflow


def _given(workflow: Workflow, texts: dict[str, str]) -> dict[str, Any]:
    """The values of `-p` for a workflow that is yet to be applied. Raises InvalidInput."""
    values = _params(workflow, texts)
    missing = [
        Problem("is missing, and has no default", field=f"-p {param.name}", allowed=param.type)
        for param in workflow.params
        if param.required and param.name not in values
    ]
    if missing:
        raise InvalidInput(missing)
    return values


def _params(workflow: Workflow, texts: dict[str, str]) -> dict[str, Any]:
    """The values of `-p`, each read as its param's type. Raises InvalidInput with all problems."""
    from grampus.model.params import parse_text
    from grampus.model.spelling import nearest

    declared: dict[str, Param] = {param.name: param for param in workflow.params}
    values: dict[str, Any] = {}
    problems = []
    for name, text in texts.items():
        if name not in declared:
            message = f"{workflow.name} has no param `{name}`{nearest(name, list(declared))}"
            problems.append(_allowing(Problem(message, field=f"-p {name}"), list(declared)))
            continue
        try:
            values[name] = parse_text(declared[name], text)
        except ValueError as error:
            problems.append(Problem(str(error), field=f"-p {name}"))
    if problems:
        raise InvalidInput(problems)
    return values


def _allowing(problem: Problem, names: list[Any]) -> Problem:
    from dataclasses import replace

    return replace(problem, allowed=", ".join(map(str, names)) or "none")


def _done(run: Run) -> str:
    from grampus.model.run import FINAL_TASK

    return f"{sum(run.counts.get(state, 0) for state in FINAL_TASK)}/{run.tasks}"


def _lasted(run: Run, now: int) -> str:
    begun = ms_of(run.started)
    return "" if begun is None else span((ms_of(run.ended) or now) - begun)


def _print(run: Run, tasks: list[TaskRun]) -> None:
    from grampus.clock import SystemClock

    now = SystemClock().now()
    print(f"run       {run.id} of {run.workflow}, version {run.version}")
    print(f"state     {run.state}{f': {clean(run.reason)}' if run.reason else ''}")
    print(f"created   {run.created.astimezone():%Y-%m-%d %H:%M:%S %Z}, {ago(run.created, now)}")
    if run.started is not None:
        print(f"took      {_lasted(run, now)}")
    for name, value in run.params.items():
        print(f"param     {clean(name)} = {clean(str(value))}")
    print()
    rows = []
    for task in tasks:
        begun, last = ms_of(task.started), task.attempts[-1] if task.attempts else None
        took = "" if begun is None else span((ms_of(task.ended) or now) - begun)
        tries = f"{task.tries}/{task.max_attempts}"
        where = last.worker if last else ""
        why = task.reason or (_why(last, now) if last else "")
        rows.append((task.name, task.kind, str(task.state), tries, took, where, why))
    table(("TASK", "KIND", "STATE", "TRIES", "TOOK", "WORKER", "REASON"), rows)


def _why(last: Attempt, now: int) -> str:
    """What an attempt that is the newest of its task has to say."""
    since = ms_of(last.unreachable_since)
    if since is None:
        return last.error
    until = "until its worker is back, or: grampus run declare-lost"
    if last.lease is not None:
        until = f"starts elsewhere when its lease of {span(last.lease)} ends"
    return f"UNREACHABLE for {span(max(now - since, 0))}; {until}"
