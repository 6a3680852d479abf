"""Errors of the metadata center on their way from a server to a client: the same class comes out.

Rule: what a kind says of whether it happened stays true on the way. A kind that is not known is a
plain refusal.
"""

from __future__ import annotations

from grampus.cluster.requests import Failed
from grampus.consensus.port import Stopped
from grampus.errors import (
    NOT_ADMITTED,
    Compacted,
    GrampusError,
    InvalidInput,
    Lagging,
    LockLost,
    NoQuorum,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Problem,
    ProtocolError,
    Refused,
    ServerUnreachable,
    SessionUnknown,
    TooLarge,
    UsageError,
    WrongHistory,
)

#: The most special first: an error is told as the first that fits.
KINDS: dict[str, type[GrampusError]] = {
    "overloaded": Overloaded,
    "session-unknown": SessionUnknown,
    "lock-lost": LockLost,
    "compacted": Compacted,
    "lagging": Lagging,
    **NOT_ADMITTED,
    "not-leader": NotLeader,
    "refused": Refused,
    "no-quorum": NoQuorum,
    "unknown-outcome": OutcomeUnknown,
    "unreachable": ServerUnreachable,
    "too-large": TooLarge,
    "invalid-input": UsageError,
    "not-found": NotFound,
    "malformed": ProtocolError,
    "stopped": Stopped,
}
#: Characters of a text.
_TEXT = 4096


def failed(error: GrampusError) -> Failed:
    kind = next((kind for kind, of in KINDS.items() if isinstance(error, of)), "defect")
    number = leader = None
    match error:
        case Compacted():
            number = error.first
        case Overloaded():
            number = error.retry_after
        case WrongHistory():
            number = error.revision
        case NotLeader():
            leader = error.leader
    return Failed(kind, str(error)[:_TEXT], number or 0, leader or "")


def error_of(failed: Failed) -> GrampusError:
    text = failed.text
    match failed.kind:
        case "compacted":
            return Compacted(text, failed.number)
        case "overloaded":
            return Overloaded(text, failed.number)
        case "wrong-history":
            return WrongHistory(text, revision=failed.number)
        case "not-leader":
            return NotLeader(text, failed.leader or None)
        case "invalid-input":
            return InvalidInput([Problem(text)])
        case "defect":
            return GrampusError(text)
        case kind:
            return KINDS.get(kind, Refused)(text)
