"""What a probe of `grampus doctor` found."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

State = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True):
    name: str
    state: State
    found: str
    #: What to do, unless it is ok.
    advice: str = ""
