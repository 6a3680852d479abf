"""`grampus run retry | pause | resume | declare-lost`: what steers a run that is there."""

from __future__ import annotations

from typing import Annotated

import typer

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
from grampus.cli.output import document, note

#: Tasks of a new round that are named.
MOST_NAMED = 8
TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="Name of the task.")]


def retry(
    ctx: typer.Context,
    run: RunArgument,
    task: Annotated[
        str | None,
        typer.Option("--from", metavar="TASK", help="That task and all downstream, too."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the run ends.")] = False,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Run again what did not succeed; what succeeded is kept.

    Exit codes with --wait: 0 succeeded, 1 failed, 5 cancelled, 130 left early."""
    with connect(ctx, server, token_file) as client:
        retried = client.retry(meant(client, run).id, task)
        named = ", ".join(retried.tasks[:MOST_NAMED])
        more = len(retried.tasks) - MOST_NAMED
        note(f"round {retried.round}: {named}{f' and {more} more' if more > 0 else ''}")
        if wait:
            from grampus.cli.attend import stay

            stay(client, retried.id, None, output, tell_id=True)
        if output is Format.json:
            document(retried)
        else:
            print(retried.id, flush=True)
        note(f"  watch it:   grampus run wait {retried.id}")


def pause(
    ctx: typer.Context,
    run: RunArgument,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Start nothing more of a run; what runs goes on."""
    with connect(ctx, server, token_file) as client:
        view = client.pause(meant(client, run).id)
    if output is Format.json:
        document(view)
    else:
        print(f"{view.id} {view.state}")
        note(f"  let it go on: grampus run resume {view.id}")


def resume(
    ctx: typer.Context,
    run: RunArgument,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Let a paused run go on."""
    with connect(ctx, server, token_file) as client:
        view = client.resume(meant(client, run).id)
    if output is Format.json:
        document(view)
    else:
        print(f"{view.id} {view.state}")


def declare_lost(
    ctx: typer.Context,
    run: RunArgument,
    task: TaskArgument,
    yes: Yes = False,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Say that a task's attempt is lost, so that it starts again.

    For a worker that does not come back. If the attempt does live on, the task runs twice."""
    with connect(ctx, server, token_file) as client:
        view = meant(client, run)
        confirm(f"Is nothing left of {task} of run {view.id}, on no machine?", yes)
        state = client.declare_lost(view.id, task)
    if output is Format.json:
        document({"task": task, "state": state})
    else:
        print(f"{task} {state}")
