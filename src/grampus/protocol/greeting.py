"""The first message in each direction, and the last one of a side that has had enough.

Whoever connects says `Hello`: who he is, for which lane. He hears `Welcome`, or `Goodbye` with the
reason. Servers tell each other here what their folders have been through (`consensus.trail`).
"""

from __future__ import annotations

from msgspec import Struct

from grampus.errors import NOT_ADMITTED, GrampusError, Refused
from grampus.model.member import Member


class Stamp(Struct, frozen=True, array_like=True):
    """That a server's folder was in use at some time: see `consensus/trail.py`."""

    number: int
    value: int


class Hello(Struct, frozen=True, array_like=True, tag="hello"):
    """First message of a connection, from whoever connects."""

    version: int
    #: `control`, `bulk`, or `keys`.
    lane: str
    #: `worker`, `server`, or `join` for one who is neither yet.
    role: str
    node: str
    #: Empty when not known yet.
    cluster: str
    #: Empty where a certificate tells who it is.
    credential: str
    #: Of a server: the history of its ledger, and its Raft id.
    history: str = ""
    id: int = 0
    #: Of a server: where it is answered, also by one whose ledger does not name it yet.
    listens: Member | None = None
    #: Of a server, and of one who wants to become it: the newest apply version that it knows.
    apply: int = 0
    #: Of a server: the newest stamp of its folder, its term, and the last entry of its log.
    stamp: Stamp | None = None
    term: int = 0
    last: int = 0
    #: Of a server: how many histories came before that of its ledger; -1: not known.
    age: int = -1
    #: Of a server: which process of it speaks, a random number.
    instance: int = 0

    def __repr__(self) -> str:
        return f"Hello(lane={self.lane!r}, role={self.role!r}, node={self.node!r})"


class Welcome(Struct, frozen=True, array_like=True, tag="welcome"):
    version: int
    node: str
    cluster: str
    #: Of a server, to a server: the newest apply version that it knows.
    apply: int = 0
    #: To a server: whether it is to tell its stamps; and the newest one that was seen of it.
    stamps: bool = False
    seen: Stamp | None = None
    #: To a worker, and on the lane for keys: the history of the ledger, and its newest revision.
    history: str = ""
    revision: int = 0
    #: To a server: the term of who answers, and the last entry that he was answered for in it.
    term: int = 0
    acknowledged: int = 0


class Goodbye(Struct, frozen=True, array_like=True, tag="goodbye"):
    """The connection is closed, with the reason."""

    reason: str
    #: Of who is not admitted: a name of `errors.NOT_ADMITTED`; "" when it is something else.
    kind: str = ""

    def error(self, text: str, otherwise: type[GrampusError] = Refused) -> GrampusError:
        """For who hears it: `text` says by whom, or from what, he was kept."""
        return NOT_ADMITTED.get(self.kind, otherwise)(f"{text}: {self.reason}")
