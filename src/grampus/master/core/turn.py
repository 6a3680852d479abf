"""The answer of one step, in the order in which it must be carried out.

A message is only ever the consequence of a fact, and a fact is committed; so messages may leave at
once. What is not committed yet is in `commands`: nothing may be sent on their behalf before their
own facts have come back through `step`.
"""

from __future__ import annotations

from msgspec import Struct

from grampus.master.core.events import Proposal
from grampus.protocol import Kill, Sync


class SendAssign(Struct, frozen=True):
    """Tell the worker to start this attempt. The driver adds the task, its params and inputs."""

    session: int
    n: int
    run: str
    index: int
    attempt: int
    token: int


Order = SendAssign | Kill | Sync


class Turn(Struct, frozen=True):
    #: To be sent now; may be lost, doubled or late without harm.
    messages: tuple[Order, ...] = ()
    #: To be proposed together; each is accepted or refused alone.
    commands: tuple[Proposal, ...] = ()
    #: Runs to be read anew and handed back as RunLoaded.
    reload: tuple[str, ...] = ()
    #: When `step` wants to be called again, at the latest; None is never.
    wake_at: int | None = None
    #: Another master is in office: stop.
    deposed: bool = False
