"""The servers of a cluster, whether their ledgers agree, and tokens to join it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from grampus.api.schemas.base import Answer, Time


class MemberAnswer(Answer):
    name: str
    id: str = Field(description="Changes when the server gets a new folder.")
    address: str
    role: Literal["voter", "learner", "lost"]
    state: Literal["leads", "follows", "behind", "silent", "waits", "unknown"]
    behind: int | None = Field(description="Entries that it lacks; null when not known.")
    complaint: str = Field(description="Why it is not reached, or empty.")
    apply_version: int = Field(
        description="The newest apply version that it knows; 0 when it does not answer."
    )
    cpu: int | None = Field(
        description="Percent of its machine, over the last minute; null while it does not say."
    )
    memory: int | None = Field(description="Free bytes, over the last minute; or null.")
    lacks: int = Field(
        description="Bundles and results that it has still to fetch from other servers."
    )
    disk: int = Field(
        description="Ms: 0 when its disk is well; from 2000 on, a write has hung there for so long;"
        " else a write takes so long, time and again."
    )


class ClusterAnswer(Answer):
    cluster: str
    history: str = Field(description="Changes when a cluster is recovered or restored.")
    server: str = Field(description="The one that answers.")
    leader: str | None
    led: int = Field(description="For how long there is this leader, or none, in ms.")
    term: int
    commit: int
    applied: int
    members: list[MemberAnswer]
    can_lose: int | None = Field(
        description="Voters that may still be lost; -1 when the majority is gone; null: not known."
    )
    advice: list[str]
    apply_version: int = Field(
        description="Of the ledger: which rules count. Raised when every server knows a newer one."
    )
    held_back: list[str] = Field(
        description="Servers that hold it back, while others know a newer one."
    )


class LedgerLine(Answer):
    name: str
    state: Literal["same", "differs", "waits", "unclear"] = Field(
        description="`waits`: not told yet. `unclear`: no majority has the same."
    )
    sum: str = Field(description="SHA-256 over all rows, or empty.")


class CheckAnswer(Answer):
    index: int = Field(description="Of the entry in the log after which all took their checksum.")
    agreed: str | None = Field(description="What most voters have; null while it is not known.")
    servers: list[LedgerLine]


class TokenRequest(BaseModel):
    """What a join token is for."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["server", "worker"] = "server"
    name: str = Field("", max_length=63, description="Only for that node; empty: any.")
    life: int = Field(3_600_000, ge=1_000, le=604_800_000, description="In ms.")


class TokenAnswer(Answer):
    token: str = Field(description="Told this once, and kept nowhere.")
    role: Literal["server", "worker"]
    expires: Time


class TokenLine(Answer):
    """A join token, without its secret."""

    id: str
    role: Literal["server", "worker"]
    name: str = Field(description="Only for that node; empty: any.")
    created: Time
    expires: Time
    used: Time | None
    used_by: str = Field(description="Name of the node that joined with it, or empty.")


class TokenList(Answer):
    items: list[TokenLine]
