"""What a command that is declined is answered with."""

from __future__ import annotations

from msgspec import Struct


class Refusal(Struct, frozen=True, array_like=True, tag="refused"):
    """A command was declined. A normal answer: nothing changed."""

    #: `conflict`, `not-found`, `stale-epoch`, `no-slot`, `not-due`, `not-active`, `no-session`,
    #: `no-space`, `too-many`, `forgotten`, `no-token`, `expired`, `used`
    code: str
    reason: str
