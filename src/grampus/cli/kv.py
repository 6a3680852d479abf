"""`grampus kv`: the metadata center by hand."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Annotated

import typer

from grampus.cli.noun import Noun
from grampus.cli.options import Format, Output, Server, TokenFile, connect
from grampus.cli.output import clean, document, document_line, note, table

app = Noun("kv", "Small values by key, for the whole cluster.")
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key.")]
Prefix = Annotated[
    str, typer.Argument(metavar="PREFIX", help="What the keys begin with; all by default.")
]
IfRevision = Annotated[
    int | None,
    typer.Option(
        "--if-revision", min=0, metavar="N", help="Only if its newest put is of that revision."
    ),
]
Stale = Annotated[
    bool, typer.Option("--stale", help="As that server has it, without asking the others.")
]
#: Cells of a value in a table.
SHOWN = 60


@app.callback()
def kv() -> None:
    """Small values by key, for the whole cluster."""


@app.command()
def get(
    ctx: typer.Context,
    key: Key,
    stale: Stale = False,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Print the value of a key, as it is.

    Exit code 6 when there is no such key."""
    with connect(ctx, server, token_file) as client:
        found = client.kv.get(key, stale=stale)
    if output is Format.json:
        document(found)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(found.value)
    if sys.stdout.isatty() and not found.value.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


@app.command()
def put(
    ctx: typer.Context,
    key: Key,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="The value; `-` is what comes on stdin.")
    ],
    if_revision: IfRevision = None,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Write a key; prints the revision.

    With --if-revision 0 only if it does not exist. Exit code 4 when it is not so."""
    data = sys.stdin.buffer.read() if value == "-" else value.encode()
    with connect(ctx, server, token_file) as client:
        revision = client.kv.put(key, data, if_revision=if_revision)
    if output is Format.json:
        document({"revision": revision})
    else:
        print(revision)


@app.command()
def delete(
    ctx: typer.Context,
    key: Key,
    if_revision: IfRevision = None,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Delete a key; prints the revision.

    Exit code 6 when there is no such key, 4 when it is at another revision."""
    with connect(ctx, server, token_file) as client:
        revision = client.kv.delete(key, if_revision=if_revision)
    if output is Format.json:
        document({"revision": revision})
    else:
        print(revision)


@app.command("range")
def range_(
    ctx: typer.Context,
    prefix: Prefix = "",
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 1000,
    stale: Stale = False,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """List keys by prefix, in order."""
    with connect(ctx, server, token_file) as client:
        found = list(client.kv.range(prefix, limit=limit, stale=stale))
    if output is Format.json:
        document(found)
        return
    if not found:
        note(f"no key begins with {prefix}" if prefix else "there is no key")
        return
    rows = [(k.key, str(k.mod_revision), str(k.version), shown(k.value)) for k in found]
    table(("KEY", "REVISION", "VERSION", "VALUE"), rows)
    if len(found) == limit:
        note(f"these are the first {limit}; see more with --limit")


@app.command()
def watch(
    ctx: typer.Context,
    prefix: Prefix = "",
    first: Annotated[
        int | None,
        typer.Option("--from", min=0, metavar="N", help="From that revision on; else from now."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="End after so many revisions.")
    ] = None,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Follow what changes, until interrupted or --limit is reached.

    With -o json one line a revision."""
    with connect(ctx, server, token_file) as client:
        for changed in islice(client.kv.watch(prefix, first=first), limit):
            if output is Format.json:
                document_line(changed)
                continue
            for change in changed.changes:
                value = "" if change.value is None else clean(shown(change.value))
                text = f"{changed.revision} {change.type} {clean(change.key)} {value}"
                print(text.rstrip(), flush=True)


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def lock(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the lock.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="What runs while it is held, with its arguments."),
    ] = None,
    wait: Annotated[
        str | None, typer.Option("--wait", metavar="TIME", help="For how long to wait for it.")
    ] = None,
    ttl: Annotated[
        str,
        typer.Option("--ttl", metavar="TIME", help="After so much silence it is lost."),
    ] = "10s",
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Hold a lock while COMMAND runs, or until Ctrl-C.

    First come, first served, in the whole cluster. Options come before NAME. COMMAND finds the
    fencing token, which grows with every holder, in GRAMPUS_FENCING_TOKEN; its exit code is that
    of this command. Without COMMAND the token is printed. Exit code 4 when it is lost, or not free
    in time."""
    from grampus.cli.lock import hold, run
    from grampus.errors import UsageError

    if command and command[0] == "--":
        command = command[1:]
    elif command and command[0].startswith("-"):
        raise UsageError(
            f"{command[0]} comes after NAME, where the command begins: options go before"
        )
    seconds = _seconds("--ttl", ttl)
    patience = None if wait is None else _seconds("--wait", wait)
    with connect(ctx, server, token_file) as client:
        held = client.kv.lock(
            name, patience, ttl=seconds, in_line=lambda: note(f"lock {name} is held: waiting")
        )
        with held:
            if command:
                code = run(held, seconds, command)
                if code:
                    raise typer.Exit(code)
                return
            if output is Format.json:
                document({"lock": name, "session": held.session.id, "token": held.token})
            else:
                print(held.token, flush=True)
            hold(held)
    note(f"lock {name} is given up")


def _seconds(option: str, text: str) -> float:
    from grampus.config import read_duration
    from grampus.errors import UsageError

    try:
        return read_duration(text) / 1000
    except ValueError as error:
        raise UsageError(f"{option} {text}: {error}") from None


def shown(value: bytes) -> str:
    """A value on one line: its text, or how long it is."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"({len(value)} bytes)"
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
