"""What the routes of the metadata center read and answer. Values travel in base64."""

from __future__ import annotations

import base64
import binascii
from typing import Literal

from pydantic import Field

from grampus.api.schemas.base import Answer, Request
from grampus.cluster.limits import ROWS, TXN_LIMIT
from grampus.cluster.values import KeysChanged, KeyValue
from grampus.errors import InvalidInput, Problem

#: Revisions and numbers of keys.
NUMBER = 2**62


class KeyAnswer(Answer):
    """A key of the metadata center as it stands."""

    key: str = Field(examples=["/servers/n1"])
    value: str = Field(description="In base64.", examples=["aGVsbG8="])
    create_revision: int = Field(description="In which it was made.")
    mod_revision: int = Field(description="Of its newest put; also its `ETag`.")
    version: int = Field(description="1, and one more with every put.")
    session: int = Field(description="Whose end deletes it; 0 is nobody's.")


class KeyPage(Answer):
    """Keys in order."""

    revision: int = Field(description="Of the ledger when it was read: watch from the next one on.")
    items: list[KeyAnswer]
    next: str | None = Field(description="`after` of the next page; null on the last.")


class KeyWritten(Answer):
    revision: int


class KeyDeleted(Answer):
    revision: int
    deleted: int = Field(description="How many keys.")


class ChangeAnswer(Answer):
    """One key in a revision; a delete has only type and key."""

    type: Literal["put", "delete"]
    key: str
    value: str | None = Field(default=None, description="In base64.")
    create_revision: int | None = None
    version: int | None = None
    session: int | None = None


class RevisionAnswer(Answer):
    """`data` of a watch's events: all changes of one revision under the prefix, in order."""

    revision: int
    changes: list[ChangeAnswer]


class CompareBody(Request):
    """One comparison. A key that does not exist has numbers of 0 and no value."""

    key: str
    op: Literal["=", "!=", "<", ">"] = "="
    value: str | None = Field(default=None, description="In base64.")
    create_revision: int | None = Field(default=None, ge=0, le=NUMBER)
    mod_revision: int | None = Field(default=None, ge=0, le=NUMBER)
    version: int | None = Field(default=None, ge=0, le=NUMBER)
    session: int | None = Field(default=None, ge=0, le=NUMBER)


class PutBody(Request):
    key: str
    value: str = Field(description="In base64.")
    ephemeral: bool = Field(
        default=False, description="It is gone when the `session` of the transaction is over."
    )


class DeleteBody(Request):
    """One key, or all with a prefix."""

    key: str | None = None
    prefix: str | None = None


class GetBody(Request):
    """One key, or those with a prefix."""

    key: str | None = None
    prefix: str | None = None
    limit: int = Field(default=100, ge=1, le=ROWS)


class OpBody(Request):
    """Exactly one of these."""

    put: PutBody | None = None
    delete: DeleteBody | None = None
    get: GetBody | None = None


class TxnRequest(Request):
    """`then` if all of `compare` hold, else `else`; in one revision."""

    compare: list[CompareBody] = Field(default_factory=list, max_length=TXN_LIMIT)
    then: list[OpBody] = Field(default_factory=list, max_length=TXN_LIMIT)
    orelse: list[OpBody] = Field(default_factory=list, max_length=TXN_LIMIT, alias="else")
    session: int | None = Field(
        default=None, ge=1, le=NUMBER, description="Nothing is done when that session is over."
    )


class OpAnswer(Answer):
    """Of one operation: `deleted` of a delete, `items` and `more` of a get."""

    type: Literal["put", "delete", "get"]
    deleted: int | None = None
    items: list[KeyAnswer] | None = None
    more: bool | None = Field(default=None, description="There are further keys.")


class TxnAnswer(Answer):
    revision: int
    succeeded: bool = Field(description="Whether all comparisons held, so that `then` was done.")
    results: list[OpAnswer] = Field(description="Of the branch that was taken, in its order.")


def key_answer(item: KeyValue) -> KeyAnswer:
    return KeyAnswer(
        key=item.key.decode(),
        value=base64.b64encode(item.value).decode(),
        create_revision=item.created,
        mod_revision=item.modified,
        version=item.version,
        session=item.session,
    )


def revision_answer(fact: KeysChanged) -> RevisionAnswer:
    changes = [
        ChangeAnswer(type="delete", key=c.key.decode())
        if c.value is None
        else ChangeAnswer(
            type="put",
            key=c.key.decode(),
            value=base64.b64encode(c.value).decode(),
            create_revision=c.created,
            version=c.version,
            session=c.session,
        )
        for c in fact.changes
    ]
    return RevisionAnswer(revision=fact.revision, changes=changes)


def key_bytes(text: str, field: str) -> bytes:
    """Raises InvalidInput for text that has no bytes."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInput([Problem("this is no Unicode text", field=field)]) from None


def value_bytes(text: str, field: str) -> bytes:
    """Raises InvalidInput for what is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        message = "a value comes in base64, with padding"
        raise InvalidInput([Problem(message, field=field, found=repr(text[:60]))]) from None
