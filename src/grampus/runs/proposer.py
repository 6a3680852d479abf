"""Typed proposals: commands in, one answer each out, after the commit."""

from __future__ import annotations

from grampus.consensus.port import Replica
from grampus.errors import InvalidInput, Problem
from grampus.runs.commands import COMMAND_LIMIT, Command, encode_command


class Proposer:
    """The only way by which anything in this process asks the ledger to change."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def propose(self, *commands: Command) -> list[object]:
        """What `apply` answered, per command: a value or a `Refusal`.

        Raises InvalidInput for a command beyond COMMAND_LIMIT, Overloaded when too much is in
        flight, NotLeader, NoQuorum or Stopped: then nothing happened. And OutcomeUnknown."""
        encoded = [encode_command(command) for command in commands]
        for command, data in zip(commands, encoded, strict=True):
            if len(data) > COMMAND_LIMIT:
                kind = type(command).__name__
                raise InvalidInput(
                    [Problem(f"{kind} is too large", found=f"{len(data)} bytes",
                             allowed=f"{COMMAND_LIMIT} bytes")]
                )  # fmt: skip
        return await self._replica.propose(encoded)

    async def settle(self) -> None:
        """After it, the ledger here has whatever was answered before. Raises NoQuorum, Stopped."""
        await self._replica.read_barrier()
