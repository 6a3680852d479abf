"""What the routes of sessions and locks read and answer."""

from __future__ import annotations

from pydantic import Field

from grampus.api.schemas.base import Answer, Request


class SessionRequest(Request):
    """Asked again with the same random `instance`, it is the same session."""

    name: str = Field(description="For people: at most 128 bytes, without `/`.")
    ttl: int = Field(
        default=10_000, description="In ms: it is over when so long nothing was confirmed."
    )
    instance: str | None = Field(default=None, min_length=16, max_length=128)


class SessionAnswer(Answer):
    session: int = Field(description="Its id.")
    ttl: int


class LockAnswer(Answer):
    """`token` grows with every holder: pass it on to whatever the lock protects."""

    held: bool = Field(description="If not, the session is in line for it: ask again.")
    token: int | None = Field(description="The fencing token, once it is held.")
