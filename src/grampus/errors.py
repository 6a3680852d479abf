"""Every error that Grampus raises on purpose. Whose fault it is, is the type; the type gives the
exit code.

GrampusError
├── UsageError            2   what was asked makes no sense
│   ├── InvalidInput      2   a file, a field or a value is wrong: all problems at once
│   └── TooLarge          2   more than is kept there
├── ServerUnreachable     3   nobody answers at the addresses tried
│   ├── NoQuorum          3   too few servers are there to decide anything: nothing happened
│   └── OutcomeUnknown    3   nobody has answered in time: it may have happened, or may yet
├── Refused               4   understood and declined: a conflict, a rule, a state
│   ├── Overloaded        4   try again after `retry_after` seconds
│   ├── ConditionFailed   4   the key is not as the request asks for
│   ├── SessionUnknown    4   the session is over, and all that it owned is gone
│   ├── LockLost          4   the lock is no longer held
│   ├── Compacted         4   that part of the history is forgotten: `first` is still known
│   ├── Lagging           4   this server has not come so far yet: ask another one
│   ├── NotLeader         4   another server decides: nothing happened
│   └── NotAdmitted       4   this server and whoever asks do not go together: nothing happened
│       ├── Unauthorized     4   what proves who asks is missing, or does not count here
│       ├── WrongCluster     4   the server is of another cluster than the one that is meant
│       ├── WrongHistory     4   this server goes on in another history than was seen
│       └── VersionMismatch  4   one of the two is too old for the other
├── NotFound              6
├── FolderError           4   a data folder that this process must not use
├── Outdated              4   this program is older than its cluster
├── Diverged              4   the ledger of this server is not that of the others
└── ProtocolError         70  the other side of a connection broke the rules

A refusal inside `apply` is a value (`cluster.refusal.Refusal`), not an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input, and how to mend it."""

    #: What is wrong and what to do, as one sentence without the place.
    message: str
    #: The file as the user named it, or None for a value that came from elsewhere.
    file: str | None = None
    #: 1-based line, when known.
    line: int | None = None
    #: Path of the field, e.g. `tasks.load.retry.max`.
    field: str | None = None
    #: What was found, as text.
    found: str | None = None
    #: What is allowed, as text.
    allowed: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(x) for x in (self.file, self.line) if x is not None)
        parts = [p for p in (place, self.field) if p]
        text = ": ".join([*parts, self.message])
        if self.found is not None:
            text += f" (found {self.found}"
            text += f"; allowed: {self.allowed})" if self.allowed is not None else ")"
        elif self.allowed is not None:
            text += f" (allowed: {self.allowed})"
        return text


class GrampusError(Exception):
    """Something went wrong that Grampus can explain."""

    exit_code = 70


class UsageError(GrampusError):
    """What was asked makes no sense."""

    exit_code = 2


class InvalidInput(UsageError):
    """A file, a field or a value is wrong. `problems` holds all of them, never only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class TooLarge(UsageError):
    """It is larger than what is kept there."""


class ServerUnreachable(GrampusError):
    """No server answers at the addresses tried."""

    exit_code = 3


class NoQuorum(ServerUnreachable):
    """Too few servers are there for a majority. Nothing happened: try again when they are back."""


class OutcomeUnknown(ServerUnreachable):
    """No answer came: it may have happened, or may yet. A read tells what happened until then."""


class Refused(GrampusError):
    """The request was understood and declined: a conflict, a rule or a state forbids it."""

    exit_code = 4


class Overloaded(Refused):
    """The server has too much to do. Try again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class NotLeader(Refused):
    """This server does not lead, or leads no longer. Nothing happened: ask the leader."""

    def __init__(self, message: str, leader: str | None = None) -> None:
        #: HOST:PORT where the leader listens for nodes, when it is known.
        self.leader = leader
        super().__init__(message)


class ConditionFailed(Refused):
    """The key is not as the request asks for. Nothing happened: read it, then decide."""

    def __init__(self, message: str, revision: int) -> None:
        #: Of the key's newest put; 0 when it does not exist.
        self.revision = revision
        super().__init__(message)


class SessionUnknown(Refused):
    """The session is over: its keys and locks are gone. Begin a new one."""


class LockLost(Refused):
    """The lock is no longer held: stop what it protects."""


class Compacted(Refused):
    """The history that was asked for is forgotten. Read everything, then watch from there on."""

    def __init__(self, message: str, first: int) -> None:
        #: The first revision that can still be watched from.
        self.first = first
        super().__init__(message)


class Lagging(Refused):
    """This server has not come as far as the client has seen. Nothing happened: ask another."""


class NotAdmitted(Refused):
    """This server and whoever asks do not go together. Nothing happened; another one may do."""


class Unauthorized(NotAdmitted):
    """The request carries no token, certificate or credential, or one that does not count here."""


class WrongCluster(NotAdmitted):
    """This server is of another cluster than was meant: look at the addresses, and at the token."""


class WrongHistory(NotAdmitted):
    """This server goes on in another history of the cluster than was seen: it was recovered or
    restored since, or the server has been left behind. Nothing happened."""

    def __init__(self, message: str, history: str = "", revision: int = 0) -> None:
        #: Of the server that answered: its history, and how far it is. A later history of a
        #: cluster has revisions that are 2^32 higher.
        self.history = history
        self.revision = revision
        super().__init__(message)


class VersionMismatch(NotAdmitted):
    """One of the two is older than the other can bear. The message says what to install where."""


#: Refusals that stay what they are over any connection, by their names there.
NOT_ADMITTED: dict[str, type[NotAdmitted]] = {
    "unauthorized": Unauthorized,
    "wrong-cluster": WrongCluster,
    "wrong-history": WrongHistory,
    "version-mismatch": VersionMismatch,
}


def name_of(error: GrampusError) -> str:
    """The name in NOT_ADMITTED; "" for any other error."""
    return next((name for name, kind in NOT_ADMITTED.items() if isinstance(error, kind)), "")


class NotFound(GrampusError):
    """There is no such thing."""

    exit_code = 6


class FolderError(GrampusError):
    """This process must not use that data folder: it is in use, newer, a copy, or not ours."""

    exit_code = 4


class FolderCopied(FolderError):
    """The folder is a copy of a node's, or was restored: the original may still run."""


class Outdated(GrampusError):
    """This program is older than its cluster: install the Grampus of the other servers."""

    exit_code = 4


class Diverged(GrampusError):
    """The ledger of this server is not that of the majority. Its folder is void: replace it."""

    exit_code = 4


class ProtocolError(GrampusError):
    """The other side of a connection broke the rules of the protocol."""
