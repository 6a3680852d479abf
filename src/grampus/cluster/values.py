"""The metadata center's own values: a key with its value, and what changed in one revision.

A revision is a number of the whole ledger, higher with every fact; revisions of keys have gaps.
"""

from __future__ import annotations

from msgspec import Struct


class KeyValue(Struct, frozen=True, array_like=True):
    """A key as it stands."""

    key: bytes
    value: bytes
    #: Revision in which it was made (anew), and of its newest put.
    created: int
    modified: int
    #: 1, and one more with every put.
    version: int
    #: Whose end deletes it; 0 is nobody's.
    session: int = 0


class KeyChange(Struct, frozen=True, array_like=True):
    """One put, or one delete: then `value` is None and the numbers are 0."""

    key: bytes
    value: bytes | None
    created: int = 0
    version: int = 0
    session: int = 0


class KeysChanged(Struct, frozen=True, array_like=True):
    """A fact: all that one command changed in the key space, in its order."""

    revision: int
    at: int
    changes: tuple[KeyChange, ...]


class SessionBegan(Struct, frozen=True, array_like=True):
    """A fact. The session's id is the revision."""

    revision: int
    at: int
    name: str
    ttl: int

    @property
    def session(self) -> int:
        return self.revision


class SessionOver(Struct, frozen=True, array_like=True):
    """A fact. Its keys are gone already: the fact before tells which."""

    revision: int
    at: int
    session: int
    reason: str


class SessionInfo(Struct, frozen=True, array_like=True):
    """A session that lives. `ttl` in ms."""

    id: int
    name: str
    ttl: int
    opened: int
