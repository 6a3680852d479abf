"""`grampus schedule`: when workflows start by themselves, and what became of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from grampus.cli.noun import Noun
from grampus.cli.options import Format, Output, Server, TokenFile, connect
from grampus.cli.output import document, note, table

app = Noun("schedule", "When workflows start by themselves.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a scheduled workflow.")]
Limit = Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")]


@app.callback()
def schedule() -> None:
    """When workflows start by themselves."""


@app.command("list")
def list_(
    ctx: typer.Context,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """List schedules, their next tick and what became of the last."""
    from grampus.cli.workflow import schedule_text

    with connect(ctx, server, token_file) as client:
        found = list(client.schedules())
    if output is Format.json:
        document(found)
        return
    if not found:
        note("no workflow has a schedule")
        return
    if held := found[0].held:
        note(f"schedules are held back: {held}")
        note("if the clock is right: grampus schedule trust-clock")
    rows = []
    for each in found:
        state = "HELD" if each.held else "ACTIVE"
        if each.paused or each.workflow_paused:
            state = "PAUSED"
        last = "" if each.last is None else f"{each.last.outcome} {_clock(each.last.local)}"
        when = schedule_text(each.schedule)
        rows.append((each.name, state, _clock(each.next_local), last, when))
    table(("NAME", "STATE", "NEXT", "LAST", "SCHEDULE"), rows)


@app.command("next")
def next_(
    ctx: typer.Context,
    name: Name,
    count: Annotated[int, typer.Option(min=1, max=100, metavar="N", help="How many.")] = 5,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Foretell the next ticks, on the clock of the schedule's zone."""
    with connect(ctx, server, token_file) as client:
        found = client.next_ticks(name, count)
        paused = output is Format.text and client.schedule(name).paused
    if output is Format.json:
        document(found)
        return
    if not found:
        note(f"{name} has no tick any more")
        return
    if paused:
        note(f"{name} is paused: these ticks pass without a run")
    rows = [(_clock(each.local), each.tick.strftime("%Y-%m-%d %H:%M:%SZ")) for each in found]
    table(("LOCAL", "UTC"), rows)


@app.command()
def ticks(
    ctx: typer.Context,
    name: Name,
    limit: Limit = 20,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """List planned ticks, newest first, and what became of them.

    Ticks in a row that were missed or paused are one line."""
    with connect(ctx, server, token_file) as client:
        found = list(client.ticks(name, limit))
    if output is Format.json:
        document(found)
        return
    if not found:
        note(f"no tick of {name} has come yet; see: grampus schedule next {name}")
        return
    rows = []
    for each in found:
        many = "" if each.count == 1 else f"{each.count} ticks"
        late = (each.at - each.tick).total_seconds()
        delay = f"{late:.1f}s" if each.outcome == "run" and late < 600 else ""
        what = f"{many}: {each.reason}" if many else each.reason
        rows.append((_clock(each.local), each.outcome, each.run or "", delay, what))
    table(("TICK", "OUTCOME", "RUN", "AFTER", "REASON"), rows)


@app.command()
def pause(
    ctx: typer.Context, name: Name, server: Server = None, token_file: TokenFile = None
) -> None:
    """Let ticks pass without a run; they are recorded.

    Runs can still be started by hand."""
    with connect(ctx, server, token_file) as client:
        client.pause_schedule(name)
    note(f"the schedule of {name} is paused; go on with: grampus schedule resume {name}")


@app.command()
def resume(
    ctx: typer.Context, name: Name, server: Server = None, token_file: TokenFile = None
) -> None:
    """Let a paused schedule fire again, from its next tick on."""
    with connect(ctx, server, token_file) as client:
        client.resume_schedule(name)
    note(f"the schedule of {name} fires again")


@app.command("trust-clock")
def trust_clock(ctx: typer.Context, server: Server = None, token_file: TokenFile = None) -> None:
    """Say that the clock is right, when schedules are held back.

    Look at it first: what is fired by a wrong clock cannot be taken back."""
    with connect(ctx, server, token_file) as client:
        held = client.trust_clock()
    note(f"schedules fire again; until now {held}" if held else "nothing was held back")


def _clock(local: str | None) -> str:
    """2026-11-21 06:00:00 +01:00"""
    if local is None:
        return ""
    when = datetime.fromisoformat(local)
    offset = when.strftime("%z")
    return f"{when:%Y-%m-%d %H:%M:%S} {offset[:3]}:{offset[3:5]}"
