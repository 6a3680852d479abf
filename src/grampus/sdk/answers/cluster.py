"""Workers and servers, whether the servers' ledgers agree, and tokens to join."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct


class Worker(Struct, frozen=True, kw_only=True):
    session: int
    name: str
    group: str
    slots: int
    #: Slots taken by attempts that are not final.
    busy: int
    #: `LIVE` or `ENDED`
    state: str
    since: datetime
    #: It talks to the server that leads.
    connected: bool = False
    #: Since when nothing is heard of it, once that has lasted.
    silent_since: datetime | None = None
    #: It gets no new attempts.
    draining: bool = False
    #: Percent of the machine.
    cpu: int | None = None
    #: Free bytes.
    memory: int | None = None
    #: What holds the processes of an attempt together there; None when it is not connected.
    containment: str | None = None
    #: Why it can start nothing now, or "".
    trouble: str = ""
    #: Its attempts that cannot be killed, and keep their slots.
    stuck: int = 0


class ClusterMember(Struct, frozen=True, kw_only=True):
    name: str
    id: str
    address: str
    #: `voter`, `learner` or `lost`.
    role: str
    #: `leads`, `follows`, `behind`, `silent`, `waits` or `unknown`.
    state: str
    #: Entries that it lacks; None when not known.
    behind: int | None = None
    complaint: str = ""
    #: The newest that it knows; 0 when it does not answer.
    apply_version: int = 0
    #: Percent of its machine, and free bytes, over the last minute; None while it does not say.
    cpu: int | None = None
    memory: int | None = None
    #: Bundles and results that it has still to fetch from other servers.
    lacks: int = 0
    #: Ms: 0 when its disk is well; from 2000 on, a write has hung there for so long; else a write
    #: takes so long, time and again.
    disk: int = 0


class ClusterInfo(Struct, frozen=True, kw_only=True):
    cluster: str
    history: str
    #: The server that answers.
    server: str
    leader: str | None
    #: For how long there is this leader, or none, in ms.
    led: int
    term: int
    commit: int
    applied: int
    members: list[ClusterMember]
    #: Voters that may still be lost; -1: the majority is gone; None: not known.
    can_lose: int | None
    advice: list[str]
    #: Of the ledger.
    apply_version: int = 0
    #: Servers that hold it back, while others know a newer one.
    held_back: list[str] = []


class LedgerSum(Struct, frozen=True, kw_only=True):
    name: str
    #: `same` as most, `differs`, `waits` (not told yet), or `unclear`: no majority has the same.
    state: str
    sum: str = ""


class LedgerCheck(Struct, frozen=True, kw_only=True):
    """A comparison of the servers' ledgers at entry `index`."""

    index: int
    agreed: str | None = None
    servers: list[LedgerSum]

    @property
    def complete(self) -> bool:
        return all(each.state != "waits" for each in self.servers)


class JoinToken(Struct, frozen=True, kw_only=True):
    #: A secret: it is told this once.
    token: str
    role: str
    expires: datetime

    def __repr__(self) -> str:
        return f"JoinToken(role={self.role!r})"


class TokenLine(Struct, frozen=True, kw_only=True):
    """A join token, without its secret."""

    id: str
    role: str
    #: The one node that it is for, or "".
    name: str
    created: datetime
    expires: datetime
    used: datetime | None
    #: Name of the node that joined with it, or "".
    used_by: str
