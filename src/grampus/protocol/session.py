"""A worker's session: it registers, keeps it alive, says how it is, and leaves.

Rule: an attempt belongs to a session, and a session to one incarnation of a warden. Only the server
that leads has sessions; another one says who leads.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class Register(Struct, frozen=True, array_like=True, tag="register"):
    """A worker asks for its session; answered by `Registered`, `Elsewhere`, or an
    error."""

    name: str
    #: Random id of the warden's incarnation: attempts belong to it.
    instance: str
    machine: str
    boot: str
    group: str
    slots: Annotated[int, Meta(ge=1, le=10_000)]
    pid: int
    containment: str
    #: True when every containment of earlier incarnations in this folder was seen empty.
    clean: bool
    #: Random id of its data folder.
    folder: str = ""
    #: Its attempts have leases: somebody watches over them there, and it sends Pings.
    leased: bool = False


class Registered(Struct, frozen=True, array_like=True, tag="registered"):
    session: int
    #: HOST:PORT where the servers listen for nodes, as far as they are known.
    servers: tuple[str, ...] = ()


class Elsewhere(Struct, frozen=True, array_like=True, tag="elsewhere"):
    """The answer to Register of a server that does not lead."""

    #: HOST:PORT where the leader listens for nodes; empty when not known.
    leader: str


class Ping(Struct, frozen=True, array_like=True, tag="ping"):
    """A keep-alive: a worker that has leases sends one every second."""

    session: int


class Pong(Struct, frozen=True, array_like=True, tag="pong"):
    """A majority has said, after the Ping came, that this server leads. All leases of the worker's
    attempts begin anew, at the moment at which it sent that Ping."""


class Load(Struct, frozen=True, array_like=True, tag="load"):
    """How the worker is: CPU in percent of the machine, free memory in bytes."""

    session: int
    cpu: int
    memory: int
    #: Why it can start nothing, or "".
    trouble: str = ""
    #: Attempts that are still there long after KILL was sent to them: they keep their slots.
    stuck: tuple[int, ...] = ()


class Leave(Struct, frozen=True, array_like=True, tag="leave"):
    """A worker that is stopped, and has nothing left: its session ends. Answered by `Left`."""

    session: int


class Left(Struct, frozen=True, array_like=True, tag="left"):
    """The session is over."""
