"""Workers, and whether the node itself is well."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from grampus.api.schemas.base import Answer, Time


class WorkerAnswer(Answer):
    session: int
    name: str
    group: str
    slots: int
    busy: int = Field(description="Slots taken by attempts that are not final.")
    state: Literal["LIVE", "ENDED"]
    since: Time
    connected: bool = Field(description="It talks to the server that leads.")
    silent_since: Time | None = Field(
        description="Since when nothing is heard of it, once that has lasted: what lives there is"
        " UNREACHABLE, and starts elsewhere when its lease ends."
    )
    draining: bool = Field(description="It gets no new attempts, until it is undrained.")
    cpu: int | None = Field(description="Percent of the machine; null when not known.")
    memory: int | None = Field(description="Free bytes; null when not known.")
    containment: str | None = Field(
        description="What holds the processes of an attempt together there: `pid-namespace`,"
        " `cgroup` or `subreaper`; null when it is not connected."
    )
    trouble: str = Field(description="Why it can start nothing now; empty when it can.")
    stuck: int = Field(description="Its attempts that cannot be killed, and keep their slots.")


class WorkerList(Answer):
    items: list[WorkerAnswer]


class Health(Answer):
    status: Literal["ok"]


class Readiness(Answer):
    status: Literal["ok"]
    alarms: list[str] = Field(
        description="What needs a person: it goes on, but not as it should.", examples=[[]]
    )
