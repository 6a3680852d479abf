"""Options that many commands share, and the client that they lead to."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from grampus.cli.output import note
from grampus.errors import UsageError

if TYPE_CHECKING:
    from grampus.sdk.answers import Run
    from grampus.sdk.client import Client


#: Who says no to a question has interrupted the command.
INTERRUPTED = 130


class Format(StrEnum):
    text = "text"
    json = "json"


Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL[,URL…]", help="Servers to try in turn (GRAMPUS_SERVER; default: your node)."
    ),
]
TokenFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="File with the token (or GRAMPUS_TOKEN).")
]
Authority = Annotated[
    str | None,
    typer.Option("--ca", metavar="FILE", help="Authority of the servers to trust (or GRAMPUS_CA)."),
]
Output = Annotated[Format, typer.Option("-o", "--output", help="How data is printed.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
RunArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The run's id, a unique prefix of it, or `last`.")
]
DataFolder = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="Folder of the node's data.")
]


class Globals:
    """What was said before the command's name; the command's own options win."""

    def __init__(
        self,
        server: str | None,
        token_file: str | None,
        ca: str | None = None,
        stale: bool = False,
    ) -> None:
        self.stale = stale
        self.server = server
        self.token_file = token_file
        self.ca = ca


def connect_flags(
    ctx: typer.Context, server: str | None = None, token_file: str | None = None
) -> dict[str, object | None]:
    before = ctx.find_root().obj
    ca = None
    if isinstance(before, Globals):
        server = before.server if server is None else server
        token_file = before.token_file if token_file is None else token_file
        ca = before.ca
    return {"server": server, "token_file": token_file, "ca": ca}


def connect(ctx: typer.Context, server: str | None, token_file: str | None) -> Client:
    from grampus.config import load_config
    from grampus.sdk.client import Client

    before = ctx.find_root().obj
    stale = isinstance(before, Globals) and before.stale
    client = Client(config=load_config(connect_flags(ctx, server, token_file)), stale=stale)
    client.on_silence(_tell_silence)
    client.on_stale(_StaleNote())
    return client


class _StaleNote:
    """Says once on stderr that what is printed may be behind."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self, unheard: int) -> None:
        if not self._told:
            self._told = True
            heard = "a moment ago" if unheard < 1000 else f"{unheard / 1000:,.0f} s ago"
            note(f"stale: as one server has it, which heard the leader {heard}")


def _tell_silence(why: str) -> None:
    note(f"{why}: trying again for a minute" if why else "a server answers again")


def meant(client: Client, text: str) -> Run:
    """The run that `text` names; what a prefix or `last` meant is told."""
    run = client.run(text)
    if run.id != text:
        note(f"{text} is run {run.id} of {run.workflow}")
    return run


def confirm(question: str, yes: bool) -> None:
    """Asks on a terminal; elsewhere `--yes` has to be there. Raises UsageError."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{question} Nobody can be asked here: say --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        note("nothing was done")
        raise typer.Exit(INTERRUPTED)
