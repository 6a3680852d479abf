"""What all documents of the API have in common.

Rule: names are those of `runs.views`; a time is RFC 3339 UTC text with milliseconds, or null when
it has not come. Unknown fields in a request are errors. How a view becomes an answer is in
`api.answers`, how a body is read in `api.bodies`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from grampus.ids import RUN_ID

Time = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
        examples=["2026-11-21T03:52:49.123Z"],
        json_schema_extra={"format": "date-time"},
    ),
]
RunIdText = Annotated[str, Field(pattern=f"^{RUN_ID.pattern[:-2]}$", examples=["k3v9x2m4q7ab"])]
PAGE = 100
PAGE_LIMIT = 1000


class Request(BaseModel):
    """A body that a client sends."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """A body that the server sends."""

    model_config = ConfigDict(frozen=True)
