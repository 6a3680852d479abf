"""`grampus run`: start runs, look at them, wait, cancel, delete.

Logs and results are in `logs`; retry, pause and resume in `control`; why and what in `answers`.
What a start is given is read in `starting`, and how a run looks is in `run_view`."""

from __future__ import annotations

from typing import Annotated, Any

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
from grampus.cli.output import ago, document, note, table, tell
from grampus.cli.run_view import done, lasted, print_run
from grampus.cli.starting import (
    allowing,
    definition,
    meant_workflow,
    pairs_of,
    values_for,
    values_for_new,
    workflow_file,
)
from grampus.errors import InvalidInput, NotFound, Problem, UsageError

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
    texts = pairs_of(param or [])
    if not what:
        raise UsageError("which workflow? give its name, or a file")
    loaded = workflow_file(what)
    if loaded is not None and version is not None:
        raise UsageError("--version is for a workflow that was applied: a file is the newest")
    with connect(ctx, server, token_file) as client:
        name = what
        params: dict[str, Any] = {}
        if loaded is not None:
            from grampus.cli.workflow import told

            # Before anything is stored: a start that is refused changes nothing.
            params = values_for_new(loaded.workflow, texts)
            applied = client.apply_loaded(loaded)
            told(loaded, applied.version, applied.created, applied.note)
            name, version = applied.name, applied.version
        elif texts:
            params = values_for(definition(client, name, version), texts)
        try:
            started = client.submit(name, params, key=key, version=version, priority=priority)
        except NotFound as error:
            raise meant_workflow(client, what, error) from error
        if not started.created:
            note(f"run {started.id} was started by the same request before")
        if wait:
            from grampus.cli.attend import stay

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
        raise InvalidInput([allowing(problem, list(RunState))])
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
            done(each),
            lasted(each, now),
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
    print_run(view, tasks)


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
    from grampus.cli.attend import stay

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
