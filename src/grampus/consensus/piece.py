"""What was proposed together, and what of it goes into one entry of the log."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence


class Proposal:
    """One call of `propose`; complete when it has `count` results."""

    __slots__ = ("count", "deadline", "future", "results", "size")

    def __init__(
        self,
        future: asyncio.Future[list[object]],
        count: int,
        size: int,
        deadline: float = math.inf,
    ) -> None:
        self.future = future
        #: On the loop's clock; whoever keeps the proposals looks at it.
        self.deadline = deadline
        self.count = count
        self.size = size
        self.results: list[object] = []


class Piece:
    """What of a proposal goes into one entry."""

    __slots__ = ("commands", "proposal", "size")

    def __init__(self, proposal: Proposal, commands: Sequence[bytes], size: int) -> None:
        self.proposal = proposal
        self.commands = commands
        self.size = size
