"""`grampus run logs` and `grampus run result`: what tasks wrote and what they returned."""

from __future__ import annotations

import sys
from enum import StrEnum
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
from grampus.cli.output import coloured, document, document_line, note

if TYPE_CHECKING:
    from grampus.sdk.answers import LogPiece


#: Of tasks in the logs of a run: what is neither the text's own nor that of a failure.
COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")


class Stream(StrEnum):
    stdout = "stdout"
    stderr = "stderr"


def logs(
    ctx: typer.Context,
    run: RunArgument,
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="Only this task.")] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the run ends.")
    ] = False,
    attempt: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only this attempt.")
    ] = None,
    stream: Annotated[Stream | None, typer.Option(help="Only this stream.")] = None,
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Print what tasks wrote.

    Of a whole run, each line says whose it is; of one task, it is as it was written."""
    with connect(ctx, server, token_file) as client:
        view = meant(client, run)
        if task is not None and all(t.name != task for t in client.tasks(view.id)):
            from grampus.errors import NotFound
            from grampus.model.spelling import nearest

            names = [t.name for t in client.tasks(view.id)]
            raise NotFound(f"run {view.id} has no task `{task}`{nearest(task, names)}")
        lines = _Lines(named=task is None)
        told = False
        for piece in client.logs(view.id, task, attempt=attempt, stream=stream, follow=follow):
            told = True
            if output is Format.json:
                document_line(piece)
            else:
                lines.take(piece)
        if not told:
            note("nothing was written" if view.final or follow else "nothing was written yet")
        if output is Format.text:
            lines.end()


class _Lines:
    """Log pieces as lines; half a line waits for its other half: tasks do not mix in one."""

    def __init__(self, named: bool) -> None:
        self._named = named
        self._rest: dict[tuple[str, int, str], str] = {}
        #: By task, in the order of their first line; used on a terminal.
        self._colours: dict[str, str] = {}

    def take(self, piece: LogPiece) -> None:
        if piece.note:
            note(f"{piece.task} attempt {piece.attempt} {piece.stream}: {piece.note}")
        key = (piece.task, piece.attempt, piece.stream)
        if piece.skipped:
            note(f"{piece.task} attempt {piece.attempt}: {piece.skipped} bytes were not kept")
        if not self._named:
            # One task: as it was written, at once.
            sys.stdout.write(piece.text)
            sys.stdout.flush()
            return
        for other in [k for k in self._rest if k[0] == key[0] and k[1] < key[1]]:
            # The attempts before are over: their last lines get no other half.
            self._print(other, self._rest.pop(other))
        *whole, rest = (self._rest.pop(key, "") + piece.text).split("\n")
        for line in whole:
            self._print(key, line)
        if rest:
            self._rest[key] = rest
        sys.stdout.flush()

    def end(self) -> None:
        for key, rest in self._rest.items():
            self._print(key, rest)
        sys.stdout.flush()

    def _print(self, key: tuple[str, int, str], line: str) -> None:
        number = f"/{key[1]}" if key[1] > 1 else ""
        whose = f"{key[0]}{number} |"
        if coloured(sys.stdout):
            code = self._colours.setdefault(key[0], COLOURS[len(self._colours) % len(COLOURS)])
            whose = f"\x1b[{code}m{whose}\x1b[0m"
        sys.stdout.write(f"{whose} {line}\n")


def result(
    ctx: typer.Context,
    run: RunArgument,
    task: Annotated[str, typer.Argument(metavar="TASK", help="Name of the task.")],
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Print what a task returned.

    That is JSON, or a text as it is (`-o json` quotes it)."""
    from grampus.errors import NotFound, Refused

    with connect(ctx, server, token_file) as client:
        view = meant(client, run)
        found = client.result_info(view.id, task)
        if found.encoding == "none":
            raise NotFound(f"task {task} of run {view.id} is {found.state} and has no result")
        if found.encoding == "pickle":
            raise Refused(
                f"the result of {task} is a pickled Python object of {found.size} bytes: reading "
                "it runs code of that workflow\n"
                f'in Python: Client().result("{view.id}", "{task}", unpickle=True)'
            )
        value = found.value if found.inline else client.result(view.id, task)
    if output is Format.text and isinstance(value, str):
        print(value)
    else:
        document(value)
