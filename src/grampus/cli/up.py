"""`grampus up`: one node in the foreground, and how it is told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from grampus.cli.options import DataFolder

if TYPE_CHECKING:
    from grampus.config import Config


def up(
    data: DataFolder = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where it answers (default 127.0.0.1:8470)."),
    ] = None,
    slots: Annotated[
        str | None, typer.Option(metavar="N", help="Tasks at once (default: number of CPUs).")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The node's name (default: the host's).")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="When stopped, leave tasks to the next start.")
    ] = False,
) -> None:
    """Start a node here.

    It has everything in it, and prints `ready URL` on stdout once it takes work. Ctrl-C stops it:
    tasks get their grace and are ended, and nothing stays behind. With --detach tasks that run go
    on, and the next start in the same folder takes them over.
    """
    import asyncio
    import logging

    from grampus.config import load_config

    config = load_config({"data": data, "listen": listen, "slots": slots, "name": name})
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_run(config, detach))


async def _run(config: Config, detach: bool) -> None:
    from grampus.cli.foreground import in_foreground
    from grampus.cli.output import note
    from grampus.node import run_up

    def ready(url: str) -> None:
        print(f"ready {url}", flush=True)
        note("stop it with Ctrl-C; from another terminal try: grampus worker list")
        if url.startswith("https:"):
            note(
                f"others reach it over TLS, with {config.data}/tls/ca.pem as GRAMPUS_CA and the"
                f" token in {config.data}/token as GRAMPUS_TOKEN or --token-file"
            )

    note(f"starting node {config.name}: data in {config.data}, {config.slots} slots")
    await in_foreground(run_up(config, ready, detach=detach), detach=detach)
