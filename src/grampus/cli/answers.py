"""`grampus run story | explain`: what happened, and why something waits.

Rule: the server tells the texts, this prints them; times are those of this machine's zone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from grampus.cli.options import (
    Format,
    Output,
    RunArgument,
    Server,
    TokenFile,
    connect,
    meant,
)
from grampus.cli.output import clean, document, document_line, note, span

if TYPE_CHECKING:
    from grampus.sdk.answers import Reason, StoryLine

TaskArgument = Annotated[
    str | None, typer.Argument(metavar="TASK", help="Only this task of the run.")
]


def story(
    ctx: typer.Context,
    run: RunArgument,
    task: TaskArgument = None,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Print everything that happened to a run, in order.

    With times, durations and causes. With `-o json`, one object per line; `since` and `took` are
    milliseconds."""
    with connect(ctx, server, token_file) as client:
        day = ""
        for line in client.story(meant(client, run).id, task):
            if output is Format.json:
                document_line(line)
                continue
            if (today := f"{line.at.astimezone():%Y-%m-%d}") != day:
                day = today
                note(day)
            print(story_text(line))


def story_text(line: StoryLine) -> str:
    """`10:02:03.123   +0.8s  b/2 FAILED on vm after 3.2s: exit code 75`"""
    at = line.at.astimezone()
    since = "" if line.since is None else f"+{_short(line.since)}"
    if line.since is not None and line.since < 0:  # The clock was set back.
        since = f"-{_short(-line.since)}"
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03}  {since:>7}  {clean(line.text)}"


def explain(
    ctx: typer.Context,
    run: RunArgument,
    task: TaskArgument = None,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Say why a run or a task waits: every reason there is now.

    With `-o json` each reason has a `code` that stays the same from version to version."""
    with connect(ctx, server, token_file) as client:
        found = client.explain(meant(client, run).id, task)
    if output is Format.json:
        document(found)
        return
    print(f"run {found.run} of {found.workflow} is {found.state}")
    for reason in found.reasons:
        print(f"  {_reason(reason)}")
    for each in found.tasks:
        print(f"{each.task} is {each.state}")
        for reason in each.reasons:
            print(f"  {_reason(reason)}")
        if each.written is not None:
            print(f"  it wrote {each.written:,} bytes so far")
    if found.tasks_left:
        note(f"{found.tasks_left} more tasks are not over: name one to have it explained")


def _reason(reason: Reason) -> str:
    return f"{clean(reason.text)}  [{reason.code}]"


def _short(ms: int) -> str:
    return f"{ms / 1000:.3f}s" if ms < 1000 else span(ms)
