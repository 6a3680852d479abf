"""What a client of the keys makes of what a server says by itself."""

from __future__ import annotations

from typing import Any

import pytest

from grampus.cluster.lines import _Deaf
from grampus.errors import ProtocolError
from grampus.protocol import Goodbye, Message, Pong


class Line:
    reason = ""

    def close(self, reason: str) -> None:
        self.reason = reason


def say(*batch: Message) -> str:
    line: Any = Line()
    _Deaf().messages(line, list(batch))
    return str(line.reason)


def test_a_goodbye_is_the_reason_why_the_connection_ends() -> None:
    assert say(Goodbye("this worker was removed")).endswith("goodbye: this worker was removed")


def test_all_else_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolError, match="only answers"):
        say(Pong())
