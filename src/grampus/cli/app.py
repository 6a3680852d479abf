"""The nouns of `grampus`, and the options before them. A verb imports what it needs as it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from grampus.cli import (
    cluster,
    config,
    doctor,
    kv,
    kv_txn,
    run,
    schedule,
    server,
    up,
    worker,
    workflow,
)
from grampus.cli.options import Authority, Globals, Server, TokenFile

app = typer.Typer(
    help="Workflows that survive crashes, on one machine or many, with nothing else to operate.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start a node: grampus up. Run a workflow: grampus run start hello.py --wait",
)
app.command(name="up")(up.up)
app.command(name="doctor")(doctor.doctor)
kv.app.command("txn")(kv_txn.txn)
for part in (workflow, run, schedule, worker, kv, server, cluster, config):
    app.add_typer(part.app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("grampus")
        except PackageNotFoundError:
            number = "(not installed)"
        print(f"grampus {number}")
        raise typer.Exit


@app.callback()
def everything(
    ctx: typer.Context,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Authority = None,
    stale: Annotated[
        bool,
        typer.Option("--stale", help="Read what one server has, though no majority may be there."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    ctx.obj = Globals(server, token_file, ca, stale)
