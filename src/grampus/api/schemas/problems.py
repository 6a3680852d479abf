"""Why a request was not done (RFC 9457)."""

from __future__ import annotations

from pydantic import Field

from grampus.api.schemas.base import Answer
from grampus.api.schemas.keys import KeyAnswer


class FieldProblem(Answer):
    """One thing that is wrong with an input, and how to mend it."""

    message: str = Field(examples=["there is no such field; did you mean `params`?"])
    file: str | None = None
    line: int | None = None
    field: str | None = Field(default=None, examples=["tasks.load.retry.max"])
    found: str | None = None
    allowed: str | None = None


class ProblemDocument(Answer):
    """Why a request was not done, as `application/problem+json`."""

    type: str = Field(examples=["urn:grampus:problem:not-found"])
    title: str = Field(examples=["There is no such thing"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no run k3v9x2m4q7ab"])
    instance: str = Field(examples=["/api/v1/runs/k3v9x2m4q7ab"])
    problems: list[FieldProblem] | None = Field(
        default=None, description="All that is wrong with the input, not only the first."
    )
    revision: int | None = Field(
        default=None, description="Of `precondition-failed`: the ledger's at that time."
    )
    current: KeyAnswer | None = Field(
        default=None, description="Of `precondition-failed`: the key as it is; absent if it is not."
    )
    first: int | None = Field(
        default=None, description="Of `compacted`: the first revision that can be watched from."
    )
