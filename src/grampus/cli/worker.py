"""`grampus worker`: the machines that run tasks."""

from __future__ import annotations

import typer

from grampus.cli.options import Format, Output, Server, TokenFile, connect

app = typer.Typer(name="worker", help="The workers of the node or cluster.", no_args_is_help=True)


@app.callback()
def worker() -> None:
    """The workers of the node or cluster."""


@app.command("list")
def list_(
    ctx: typer.Context,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """List workers, their slots and load."""
    from grampus.cli.output import ago, document, note, table
    from grampus.clock import SystemClock

    with connect(ctx, server, token_file) as client:
        workers = client.workers()
    if output is Format.json:
        document(workers)
        return
    if not workers:
        note("no worker has registered yet")
        return
    now = SystemClock().now()
    rows = []
    for each in workers:
        state = each.state if each.connected or each.state != "LIVE" else "SILENT"
        cpu = "" if each.cpu is None else f"{each.cpu}%"
        memory = "" if each.memory is None else f"{each.memory / 2**30:.1f} GiB"
        slots = f"{each.busy}/{each.slots}"
        rows.append((each.name, state, each.group, slots, cpu, memory, ago(each.since, now)))
    table(("NAME", "STATE", "GROUP", "BUSY", "CPU", "FREE MEMORY", "SINCE"), rows)
