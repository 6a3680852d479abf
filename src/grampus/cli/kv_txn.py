"""`grampus kv txn`: several keys compared and changed in one revision, as a document says.

Rule: the document is that of `POST /api/v1/kv:txn`, with values in base64, or as they are in `text`
instead of `value`. What it means is for the server to say.
"""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grampus.cli.kv import shown
from grampus.cli.options import Format, Output, Server, TokenFile, connect
from grampus.cli.output import document, note, table
from grampus.errors import InvalidInput, Problem, UsageError

if TYPE_CHECKING:
    from grampus.sdk.kv import TxnResult

#: When the comparisons do not hold: as for a condition of one key.
REFUSED = 4
_PARTS = ("compare", "then", "else")


def txn(
    ctx: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The document; by default, and `-`, from stdin.")
    ] = "-",
    output: Output = Format.text,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Change several keys in one revision, or none.

    The document is JSON: `then` is done if all of `compare` hold, else `else`. Prints the revision
    and what was read. Exit code 4 when they do not hold."""
    compare, then, orelse = _read(file)
    with connect(ctx, server, token_file) as client:
        done = client.kv.txn(compare, then, orelse)
    if output is Format.json:
        document(done)
    else:
        _tell(done)
    if not done.succeeded:
        note("the comparisons do not hold" + (": `else` was done" if orelse else ""))
        raise typer.Exit(REFUSED)


def _tell(done: TxnResult) -> None:
    print(done.revision)
    rows = [
        (key.key, str(key.mod_revision), str(key.version), shown(key.value))
        for result in done.results
        for key in result.items
    ]
    if rows:
        table(("KEY", "REVISION", "VERSION", "VALUE"), rows)


def _read(file: str) -> tuple[list[Any], list[Any], list[Any]]:
    """Raises UsageError, InvalidInput."""
    import msgspec

    name = "stdin" if file == "-" else file
    if file == "-" and sys.stdin.isatty():
        note("the document comes from the terminal: end it with Ctrl-D")
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from None
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput([Problem(f"this is no JSON: {error}", file=name)]) from None
    if not isinstance(found, dict):
        raise InvalidInput([Problem("a transaction is one object", file=name)])
    wrong = [
        Problem("a transaction has no such part", file=name, field=part, allowed=", ".join(_PARTS))
        for part in found
        if part not in _PARTS
    ]
    wrong += [
        Problem("it is a list of objects", file=name, field=part)
        for part in _PARTS
        if not _is_list(found.get(part, []))
    ]
    if wrong:
        raise InvalidInput(wrong)
    compare, then, orelse = (
        [_decoded(each, name, f"{part}.{n}") for n, each in enumerate(found.get(part, []))]
        for part in _PARTS
    )
    return compare, then, orelse


def _is_list(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(each, dict) for each in found)


def _decoded(part: Mapping[str, Any], name: str, place: str) -> dict[str, Any]:
    """With values as bytes. Raises InvalidInput."""
    decoded: dict[str, Any] = {}
    for key, value in part.items():
        field = f"{place}.{key}"
        if key in ("value", "text") and not isinstance(value, str):
            raise InvalidInput([Problem("a value is a string", file=name, field=field)])
        if key == "value":
            try:
                decoded["value"] = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                message = "a value comes in base64, with padding; as it is it goes into `text`"
                raise InvalidInput([Problem(message, file=name, field=field)]) from None
        elif key == "text":
            decoded["value"] = value.encode()
        else:
            decoded[key] = _decoded(value, name, field) if isinstance(value, dict) else value
    return decoded
