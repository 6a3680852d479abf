"""`grampus server`: one server of a cluster, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from grampus.cli.noun import Noun
from grampus.cli.options import DataFolder

if TYPE_CHECKING:
    from grampus.config import Config, Listen
    from grampus.server.arrival import Plan

#: Seconds within which a server that was told to stop is gone.
LAST = 30.0

app = Noun("server", "A server of a cluster.")


@app.callback()
def server() -> None:
    """A server of a cluster."""


@app.command()
def start(
    data: DataFolder = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where it answers; other nodes use the next port (default: as before, else"
            " 127.0.0.1:8470).",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The server's name (default: as before, else the host's)."
        ),
    ] = None,
    init: Annotated[
        bool, typer.Option("--init", help="Found a cluster, if the folder belongs to none yet.")
    ] = False,
    join: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT[,…]",
            help="Join the cluster of these servers, if the folder belongs to none yet (default:"
            " [cluster] servers).",
        ),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="File with the join token (grampus cluster token)."),
    ] = None,
) -> None:
    """Start a server of a cluster here.

    The first one founds the cluster with --init, also in the folder of a `grampus up`, whose runs
    it keeps; the others join it. Once a folder belongs to a cluster, --data is all that a start
    needs. Prints `ready URL` on stdout once a majority of the servers is there. Ctrl-C stops it.
    """
    import asyncio
    import logging

    from grampus.config import load_config

    config = load_config({"data": data, "listen": listen, "name": name})
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING
    )
    logging.getLogger("grampus").setLevel(logging.INFO)
    asyncio.run(_run(config, _plan(config, init, join, token_file)))


def _plan(config: Config, init: bool, join: str | None, token_file: str | None) -> Plan:
    from grampus.cluster.join_token import parse
    from grampus.errors import UsageError
    from grampus.server.arrival import Plan

    if init and join:
        raise UsageError("a server founds a cluster (--init) or joins one (--join), not both")
    text = _read_token(token_file)
    servers = _addresses(join)
    others = tuple(at for at in config.cluster_servers if at != config.listen)
    if join is None and not init:
        servers = others
    return Plan(init, servers, parse(text) if text else None, others)


def _read_token(token_file: str | None) -> str:
    import os
    from pathlib import Path

    from grampus.errors import UsageError

    if token_file is None:
        return os.environ.get("GRAMPUS_JOIN_TOKEN", "")
    try:
        return Path(token_file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"the token file {token_file} cannot be read: {why}") from error


def _addresses(text: str | None) -> tuple[Listen, ...]:
    from grampus.config import read_listen
    from grampus.errors import UsageError

    try:
        return tuple(read_listen(part.strip()) for part in (text or "").split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"--join {text}: {error}") from None


async def _run(config: Config, plan: Plan) -> None:
    """Runs the server until SIGINT or SIGTERM; one that was told to stop has done well."""
    import asyncio
    import gc
    import signal
    import threading

    from grampus.cli.output import note
    from grampus.errors import UsageError

    # What is imported stays: to look through it again and again is a fifth of the start.
    gc.disable()
    try:
        from grampus.server.serve import run_server
    except ModuleNotFoundError as error:
        if error.name != "grampus_raft":
            raise
        raise UsageError(
            "a server of a cluster needs grampus_raft, which is not installed: get Rust 1.85 or"
            " newer from https://rustup.rs, then say: make raft (one node, grampus up, needs none)"
        ) from None
    gc.freeze()
    gc.enable()

    def ready(url: str) -> None:
        print(f"ready {url}", flush=True)
        note("stop it with Ctrl-C; see the cluster with: grampus cluster status")

    node = asyncio.current_task()
    assert node is not None
    cancel = node.cancel
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            cancel()
            note("stopping")
            threading.Thread(target=_leave, daemon=True).start()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    if "default" in (config.sources["name"], config.sources["listen"]):
        # The folder may know better what its server is called, and where it listens.
        note(f"starting the server of {config.data}")
    else:
        note(f"starting server {config.name} at {config.listen}: data in {config.data}")
    try:
        await run_server(config, plan, ready, lambda what: note(f"waiting: {what}"))
    except asyncio.CancelledError:
        if not stopped:
            raise
    if stopped:
        note("stopped")


def _leave() -> None:
    """On a thread: an interpreter waits, for ever, for a thread of its that waits for a disk."""
    import os
    import time

    from grampus.cli.output import note
    from grampus.errors import Refused

    time.sleep(LAST)
    note(
        f"error: no end within {LAST:g} s: the disk does not answer. This server leaves all the"
        " same: what was acknowledged is on a majority of the servers"
    )
    os._exit(Refused.exit_code)
