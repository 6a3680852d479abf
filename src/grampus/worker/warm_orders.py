"""What the warden and a prepared process say to each other: one datagram per message."""

from __future__ import annotations

from msgspec import Struct


class Prepared(Struct, frozen=True, array_like=True, tag="prepared"):
    """The module is imported; shims may be asked for."""


class Declined(Struct, frozen=True, array_like=True, tag="declined"):
    """This module's attempts must start cold."""

    reason: str


class Rise(Struct, frozen=True, array_like=True, tag="rise"):
    """Fork a shim; its socket comes along. It says hello on it by its own pidfd."""

    attempts: str
    slot: int
    cap: int
    mark: str
