"""How an error crosses a connection: as an exit code, which says whose fault it is, and a text.

Who is not admitted is told so by a name, too: the same class comes out (`errors.NOT_ADMITTED`).
"""

from __future__ import annotations

from grampus.errors import (
    NOT_ADMITTED,
    GrampusError,
    NotFound,
    Refused,
    ServerUnreachable,
    UsageError,
    name_of,
)
from grampus.rpc.codec import Reason

#: Longest text of an error response, in characters.
_LONGEST_TEXT = 4096


class RemoteError(GrampusError):
    """The other side failed to answer a request, through a fault of its own."""


_BY_EXIT_CODE: dict[int, type[GrampusError]] = {
    kind.exit_code: kind for kind in (UsageError, ServerUnreachable, Refused, NotFound)
}


def told(error: GrampusError, frame_limit: int) -> Reason:
    """`error` for the other side, in a text that fits into a frame of so many bytes."""
    text = str(error)[: min(_LONGEST_TEXT, frame_limit // 8)]
    text = text.encode("utf-8", "replace").decode("utf-8")
    return Reason(error.exit_code, text, name_of(error))


def heard(reason: Reason) -> GrampusError:
    """The error that the other side told of."""
    named = NOT_ADMITTED.get(reason.kind)
    return (named or _BY_EXIT_CODE.get(reason.exit_code, RemoteError))(reason.text)
