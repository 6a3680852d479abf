"""Keys of the metadata center, and how they change."""

from __future__ import annotations

from msgspec import Struct


class Key(Struct, frozen=True, kw_only=True):
    """A key of the metadata center as it stands."""

    key: str
    value: bytes
    create_revision: int
    #: Of its newest put.
    mod_revision: int
    version: int
    #: Whose end deletes it; 0 is nobody's.
    session: int = 0


class KeyChange(Struct, frozen=True, kw_only=True):
    """`type` is `put`, or `delete`: then there is only the key."""

    type: str
    key: str
    value: bytes | None = None
    create_revision: int = 0
    version: int = 0
    session: int = 0


class KeysChanged(Struct, frozen=True, kw_only=True):
    """All changes of one revision, in their order."""

    revision: int
    changes: list[KeyChange]
