"""`grampus cluster`: the servers, and what a person does about them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from grampus.cli.noun import Noun
from grampus.cli.options import Format, Output, Server, TokenFile, Yes, confirm, connect
from grampus.cli.output import document, note, span, table

if TYPE_CHECKING:
    from grampus.sdk.answers import ClusterInfo, LedgerCheck
    from grampus.sdk.client import Client

app = Noun("cluster", "The servers of a cluster, and who leads them.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a server.")]


#: Of a join token, in ms.
SHORTEST_LIFE, LONGEST_LIFE = 1_000, 604_800_000


class Role(StrEnum):
    server = "server"
    worker = "worker"


Folder = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="Folder of the stopped server.")
]


@app.callback()
def cluster() -> None:
    """The servers of a cluster, and who leads them."""


@app.command()
def status(
    ctx: typer.Context,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Say who leads, what may still be lost, and what to do next.

    Also who is behind or silent, and why."""
    with connect(ctx, server, token_file) as client:
        found = client.cluster()
    if output is Format.json:
        document(found)
        return
    print(f"cluster   {found.cluster}, history {found.history}")
    if found.leader is None:
        print(f"leader    none for {span(found.led)} (seen from {found.server})")
    else:
        # A node alone has led for as long as it runs.
        since = f" for {span(found.led)}" if found.led else ""
        print(f"leader    {found.leader}{since}, term {found.term}")
    print(f"log       {found.commit:,} entries committed, {found.applied:,} applied")
    print(f"can lose  {_can_lose(found)}")
    if found.held_back:
        print(f"version   {found.apply_version}, held back by {', '.join(found.held_back)}")
    else:
        print(f"version   {found.apply_version}")
    print()
    _members(found)
    for number, text in enumerate(found.advice):
        print(("\n" if not number else "") + f"→ {text}")


@app.command()
def members(
    ctx: typer.Context,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """List the servers."""
    with connect(ctx, server, token_file) as client:
        found = client.cluster()
    if output is Format.json:
        document(found.members)
    else:
        _members(found)


@app.command()
def check(
    ctx: typer.Context,
    wait: Annotated[
        str, typer.Option("--wait", metavar="TIME", help="How long it may take, e.g. 5m.")
    ] = "1m",
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Compare the ledgers of all servers now.

    The exit code is 1 unless all are the same. They compare by themselves every ten minutes; a
    server that differs stops for good."""
    with connect(ctx, server, token_file) as client:
        found = _compare(client, wait)
    if output is Format.json:
        document(found)
    else:
        print(f"entry   {found.index:,}")
        rows = [(each.name, each.state, each.sum[:16]) for each in found.servers]
        table(("NAME", "LEDGER", "SUM"), rows)
    for each in found.servers:
        if each.state == "differs":
            note(
                f"the ledger of {each.name} is damaged: it stops; say grampus cluster replace"
                f" {each.name}, empty its folder, and let it join again"
            )
        elif each.state == "waits":
            note(f"{each.name} has not told its sum: see cluster status, or ask again with --wait")
    if any(each.state == "unclear" for each in found.servers):
        note("no majority has the same ledger: nobody can say which is right")
    if any(each.state != "same" for each in found.servers):
        raise typer.Exit(1)


@app.command()
def remove(
    ctx: typer.Context,
    name: Name,
    yes: Yes = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Take a server out of the cluster, for good.

    Its folder is void afterwards."""
    confirm(f"Remove server {name} for good?", yes)
    _change(ctx, name, "remove", server, token_file)
    note(f"{name} is removed, and its process ends; empty its folder before it is used again")


@app.command()
def replace(
    ctx: typer.Context,
    name: Name,
    yes: Yes = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Give up a server whose folder is lost, for a successor.

    The next one that joins under its name takes its place."""
    confirm(f"Is the folder of server {name} lost for good?", yes)
    found = _change(ctx, name, "replace", server, token_file)
    was = next((m.address for m in found.members if m.name == name), "HOST:PORT")
    by = next((m.address for m in found.members if m.state == "leads"), "HOST:PORT")
    note(
        f"now let its successor join: grampus cluster token > FILE, then grampus server start"
        f" --data EMPTY_DIR --name {name} --listen {was} --join {by} --token-file FILE"
    )


@app.command()
def transfer(
    ctx: typer.Context, name: Name, server: Server = None, token_file: TokenFile = None
) -> None:
    """Let another voter lead.

    For example before the machine of the one that leads is serviced."""
    found = _change(ctx, name, "transfer", server, token_file)
    if found.leader == name:
        note(f"{name} leads")
    else:
        note(f"{name} is asked to lead; see: grampus cluster status")


@app.command()
def token(
    ctx: typer.Context,
    role: Annotated[
        Role, typer.Option("--role", help="What joins with it: a server, or a worker.")
    ] = Role.server,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Only for the node of this name.")
    ] = "",
    life: Annotated[
        str, typer.Option("--life", metavar="TIME", help="How long it can be used, e.g. 30m.")
    ] = "1h",
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Make a token with which one node may join, once.

    Put it into a file that only you can read, and give that to the new node:
    (umask 077; grampus cluster token > join). It is used with --token-file join."""
    from grampus.config import load_config, read_duration
    from grampus.errors import UsageError

    try:
        milliseconds = read_duration(life)
    except ValueError as error:
        raise UsageError(f"--life {life}: {error}") from None
    if not SHORTEST_LIFE <= milliseconds <= LONGEST_LIFE:
        raise UsageError(f"--life {life}: a join token lives for 1s to 7d")
    if name:
        load_config({"name": name})  # raises for what can be the name of no node
    with connect(ctx, server, token_file) as client:
        made = client.join_token(role.value, name, milliseconds)
    if output is Format.json:
        document(made)
        return
    print(made.token)
    note(f"one {role.value} may join with it until {made.expires:%Y-%m-%d %H:%M:%SZ}")


@app.command()
def tokens(
    ctx: typer.Context,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """List join tokens, the newest first, and who used them."""
    from grampus.cli.output import ago
    from grampus.clock import SystemClock

    with connect(ctx, server, token_file) as client:
        found = client.join_tokens()
    if output is Format.json:
        document(found)
        return
    now = SystemClock().now()
    rows = []
    for each in found:
        if each.used is not None:
            state = f"used by {each.used_by} {ago(each.used, now)}"
        elif each.expires.timestamp() * 1000 <= now:
            state = "expired"
        else:
            state = f"open until {each.expires:%Y-%m-%d %H:%M:%SZ}"
        rows.append((each.id, each.role, each.name or "any", state))
    table(("ID", "FOR", "NAME", "STATE"), rows)


@app.command()
def revoke(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="Of a join token: see cluster tokens.")],
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Take a join token back: nobody joins with it any more.

    Who has joined with it stays."""
    with connect(ctx, server, token_file) as client:
        client.revoke_token(id)
    note(f"the join token {id} counts no more")


@app.command()
def snapshot(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy is written.")],
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Save the cluster's state, as of one moment.

    That is every run, workflow, key and session, with bundles and results."""
    from grampus.backup import look

    with connect(ctx, server, token_file) as client:
        size = client.save_snapshot(file)
    held = look(file)
    if held.missing:
        note(
            f"{len(held.missing)} blobs are on no server that answers, and missing in it: tasks"
            f" that need them will fail; the first is {held.missing[0]}"
        )
    count = len(held.blobs)
    among = f", {count} bundles or results among it" if count else ""
    note(
        f"{file}: {size / 2**20:.1f} MiB{among}; go back to it, in an empty folder, with: grampus"
        f" cluster restore {file} --data DIR --name NAME --listen HOST:PORT"
    )


@app.command()
def recover(
    data: Folder = None,
    look: Annotated[
        bool, typer.Option("--look", help="Only say what it would keep, and what it would lose.")
    ] = False,
    yes: Yes = False,
    output: Output = Format.text,
) -> None:
    """Go on with one stopped server when the majority is lost.

    For good: it becomes the only member. What others had committed and this one had not is lost,
    and the others are refused from then on."""
    from grampus.cli.salvage import recover_folder, survey_folder, told

    found = survey_folder(data)
    if look and output is Format.json:
        document(found)
        return
    for line in told(found):
        print(line) if look else note(line)
    if look:
        return
    confirm("Are most of the servers lost for good? What only they knew is lost with them.", yes)
    recover_folder(data)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A snapshot.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the first server.")],
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where it answers.")],
    data: Annotated[
        str | None, typer.Option("--data", metavar="DIR", help="An empty folder for it.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Found a cluster anew from a snapshot.

    In an empty folder; then start its server."""
    from grampus.cli.salvage import check_snapshot, restore_folder

    check_snapshot(file)
    confirm(f"Begin a new history from {file}? Servers of the old one are refused by it.", yes)
    restore_folder(file, data, name, listen)


def _change(
    ctx: typer.Context, name: str, action: str, server: str | None, token_file: str | None
) -> ClusterInfo:
    with connect(ctx, server, token_file) as client:
        return client.change_member(name, action)


def _compare(client: Client, wait: str) -> LedgerCheck:
    from time import sleep

    from grampus.clock import SystemClock
    from grampus.config import read_duration
    from grampus.errors import UsageError

    try:
        patience = read_duration(wait)
    except ValueError as error:
        raise UsageError(f"--wait {wait}: {error}") from None
    clock = SystemClock()
    end = clock.ticks() + patience
    found, pause = client.begin_check(), 0.05
    while not found.complete and clock.ticks() < end:
        sleep(pause)
        found, pause = client.ledger_check(found.index), min(2 * pause, 1.0)
    return found


def _can_lose(found: ClusterInfo) -> str:
    if found.can_lose is None:
        return "not known here: ask the leader"
    voters = sum(1 for each in found.members if each.role != "learner")
    if found.can_lose < 0:
        return f"the majority of {voters} voters is gone: writes are refused"
    return f"{found.can_lose} of {voters} voter{'' if voters == 1 else 's'}"


def _members(found: ClusterInfo) -> None:
    rows = []
    for each in found.members:
        behind = "" if each.behind is None else f"{each.behind:,}"
        cpu = "" if each.cpu is None else f"{each.cpu} %"
        free = "" if each.memory is None else f"{each.memory / 2**30:.1f} GiB"
        rows.append(
            (each.name, each.role, each.state, behind, cpu, free, each.address, each.complaint)
        )
    table(("NAME", "ROLE", "STATE", "BEHIND", "CPU", "FREE", "ADDRESS", "COMPLAINT"), rows)
