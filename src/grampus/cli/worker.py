"""`grampus worker`: the machines that run tasks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from grampus.cli.noun import Noun
from grampus.cli.options import Format, Output, Server, TokenFile, Yes, confirm, connect

if TYPE_CHECKING:
    from grampus.config import Config
    from grampus.worker.servers import Address

#: Between two looks at a worker that is waited for, in seconds.
LOOK = 0.5

app = Noun("worker", "The workers of the node or cluster.")


@app.callback()
def worker() -> None:
    """The workers of the node or cluster."""


@app.command()
def start(
    data: Annotated[str, typer.Option("--data", metavar="DIR", help="Folder of its own data.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="Its name in the cluster.")],
    join: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT[,…]",
            help="Servers to try in turn, as their --listen has them (default: [cluster] servers).",
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="Worker group (default: default).")
    ] = None,
    slots: Annotated[
        str | None, typer.Option(metavar="N", help="Tasks at once (default: number of CPUs).")
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="File with a join token; once it has joined, none."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="When stopped, leave tasks to the next start.")
    ] = False,
) -> None:
    """Start a worker here.

    It prints `ready NAME` on stdout once a server knows it, and finds the server that leads by
    itself from then on. Ctrl-C stops it: tasks get their grace and are ended. With --detach, and
    after a kill -9, tasks that run go on, and the next start in the same folder takes them over.
    """
    import asyncio
    import logging

    from grampus.config import load_config

    config = load_config({"data": data, "name": name, "group": group, "slots": slots})
    servers = _servers(join, config)
    shown = _secret(token_file)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_start(config, servers, shown, detach))


async def _start(config: Config, servers: list[Address], shown: str, detach: bool) -> None:
    from grampus.cli.foreground import in_foreground
    from grampus.cli.output import note
    from grampus.worker.workshop import run_worker

    def ready() -> None:
        print(f"ready {config.name}", flush=True)

    note(
        f"starting worker {config.name}: group {config.group}, {config.slots} slots,"
        f" data in {config.data}"
    )
    work = run_worker(config, servers, shown, ready, detach=detach)
    await in_foreground(work, detach=detach)


def _servers(join: str | None, config: Config) -> list[Address]:
    """Where they listen for nodes. Raises UsageError."""
    from grampus.config import read_listen
    from grampus.errors import UsageError

    if join is None and not config.cluster_servers:
        raise UsageError(
            "a worker has to know a server: say --join HOST:PORT, or name them in grampus.toml:"
            ' cluster.servers = ["HOST:PORT"]'
        )
    if join is None:
        return [(listen.host, listen.node_port) for listen in config.cluster_servers]
    try:
        listens = [read_listen(part.strip()) for part in join.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"--join {join!r:.100} cannot be used: {error}") from error
    if not listens:
        raise UsageError("--join names no server: HOST:PORT, as its --listen has it")
    return [(listen.host, listen.node_port) for listen in listens]


def _secret(path: str | None) -> str:
    """What the file says; "" without one. Raises UsageError."""
    from pathlib import Path

    from grampus.errors import UsageError

    if path is None:
        return ""
    try:
        text = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not text:
        raise UsageError(f"{path} is empty: it should hold a join token")
    return text


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
        if each.draining and state == "LIVE":
            state = "DRAINING" if each.busy else "DRAINED"
        if each.trouble:
            state = "TROUBLED"
        cpu = "" if each.cpu is None else f"{each.cpu}%"
        memory = "" if each.memory is None else f"{each.memory / 2**30:.1f} GiB"
        slots = f"{each.busy}/{each.slots}"
        contained = each.containment or ""
        since = ago(each.silent_since or each.since, now)
        rows.append((each.name, state, each.group, slots, cpu, memory, contained, since))
    table(("NAME", "STATE", "GROUP", "BUSY", "CPU", "FREE MEMORY", "CONTAINMENT", "SINCE"), rows)
    for each in workers:
        if each.silent_since is not None and each.state == "LIVE" and each.busy:
            since = ago(each.silent_since, now)
            note(
                f"{each.name} fell silent {since}: what runs there is UNREACHABLE, and starts"
                " elsewhere when its lease ends (grampus run explain RUN)"
            )
        if each.trouble:
            note(f"{each.name} starts nothing, and tries again: {each.trouble}")
        if each.stuck:
            note(f"{each.name} cannot kill what {each.stuck} of its slots run: see run explain")


WorkerName = Annotated[str, typer.Argument(metavar="NAME", help="The worker's name.")]


@app.command()
def drain(
    ctx: typer.Context,
    name: WorkerName,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return once nothing of it is left to end.")
    ] = False,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Give a worker no new tasks; what it has goes on to its end.

    It stays so when the worker is started anew, until `worker undrain`. Ctrl-C leaves --wait.
    """
    from grampus.cli.output import document, note

    with connect(ctx, server, token_file) as client:
        worker = client.drain_worker(name)
        note(f"worker {name} gets no new tasks; undo it with: grampus worker undrain {name}")
        while wait and worker.busy:
            time.sleep(LOOK)
            worker = next((w for w in client.workers() if w.name == name), worker)
    if output is Format.json:
        document(worker)


@app.command()
def remove(
    ctx: typer.Context,
    name: WorkerName,
    yes: Yes = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Send a worker away, and take its key back.

    It needs a join token to come in again. What it was doing is given to others once its leases are
    over. To let it end its tasks before, say first: grampus worker drain NAME --wait
    """
    from grampus.cli.output import note

    confirm(f"Remove worker {name}? Its tasks are lost there, and tried elsewhere.", yes)
    with connect(ctx, server, token_file) as client:
        client.remove_worker(name)
    note(f"worker {name} is removed, and sent away within seconds; stop its process")


@app.command()
def undrain(
    ctx: typer.Context,
    name: WorkerName,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Give a worker tasks again."""
    from grampus.cli.output import document, note

    with connect(ctx, server, token_file) as client:
        worker = client.drain_worker(name, draining=False)
    note(f"worker {worker.name} gets tasks again")
    if output is Format.json:
        document(worker)
