"""The command `grampus`: nouns and verbs. What a command needs is imported when it runs."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from grampus.cli import config, doctor, run, schedule, up, worker, workflow
from grampus.cli.errors import guarded
from grampus.cli.options import Globals, Server, TokenFile
from grampus.errors import UsageError

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
for part in (workflow, run, schedule, worker, config):
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
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    ctx.obj = Globals(server, token_file)


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and leaves with its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(guarded(lambda: _command(given)))


def _command(given: list[str]) -> None:
    if any(0xDC80 <= ord(c) <= 0xDCFF for text in given for c in text):
        raise UsageError("the arguments are not UTF-8")
    command = typer.main.get_command(app)
    with command.make_context("grampus", given) as context:
        command.invoke(context)


if __name__ == "__main__":
    main()
