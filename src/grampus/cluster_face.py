"""What the API tells and does about the cluster: of a lone node, and of a server among others."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from grampus.clock import Clock
from grampus.cluster import join_token, tokens
from grampus.cluster.commands import encode_command
from grampus.cluster.refusal import Refusal
from grampus.cluster.token_commands import (
    CreateToken,
    RevokeToken,
    RevokeWorker,
    TokenCommand,
)
from grampus.cluster.tokens import TokenRow
from grampus.consensus.folder import Identity
from grampus.consensus.port import Replica
from grampus.consensus.roll import Line, Roll
from grampus.database import Database
from grampus.errors import NotFound, Refused

if TYPE_CHECKING:
    # A lone node works without grampus_raft, which a steward needs.
    from grampus.consensus.steward import Steward

_ALONE = (
    "this node is alone (grampus up): a cluster is founded in its folder with grampus server start"
    " --init"
)
#: Bytes of a snapshot that are sent at once.
PIECE = 1024 * 1024
#: Writes a copy of the ledger to a new file.
Copy = Callable[[Path], object]


class Snapshots:
    """Copies of the ledger for whoever asks; one at a time, in `folder`."""

    def __init__(self, folder: Path, copy: Copy) -> None:
        self._folder = folder
        self._copy = copy
        self._busy = asyncio.Lock()

    async def snapshot(self) -> tuple[int, AsyncIterator[bytes]]:
        """Its size, and its bytes. The file is gone as soon as it is open."""
        async with self._busy:
            file = await asyncio.to_thread(self._open)
        return os.fstat(file).st_size, self._pieces(file)

    def _open(self) -> int:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            path = Path(folder) / "copy.db"
            self._copy(path)
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    async def _pieces(self, file: int) -> AsyncIterator[bytes]:
        try:
            while piece := await asyncio.to_thread(os.read, file, PIECE):
                yield piece
        finally:
            os.close(file)


class TokenDesk:
    """Makes join tokens, and takes them and the keys of workers back.

    The ledger keeps a hash of each token; its text is told once."""

    def __init__(
        self,
        replica: Replica,
        readers: Database,
        authority: str,
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._replica = replica
        self._readers = readers
        self._authority = authority
        self._clock = clock
        self._entropy = entropy

    async def make(self, role: str, name: str, life: int) -> tuple[str, int]:
        """The token's text, and when it expires, in wall ms. `life` in ms. Raises Refused."""
        token = join_token.make(self._authority, self._entropy(join_token.ENTROPY))
        now = self._clock.now()
        command = CreateToken(
            at=now, id=token.id, hash=join_token.secret_hash(token.secret), role=role, name=name,
            expires=now + life,
        )  # fmt: skip
        await self._propose(command)
        return token.text, now + life

    async def list(self) -> list[TokenRow]:
        """Raises NoQuorum."""
        await self._replica.read_barrier()
        return tokens.list_tokens(self._readers)

    async def revoke(self, what: str, name: str) -> None:
        """A `token`, by its id, or the key of a `worker`. Raises NotFound."""
        now = self._clock.now()
        await self._propose(RevokeToken(now, name) if what == "token" else RevokeWorker(now, name))

    async def _propose(self, command: TokenCommand) -> None:
        """Raises NotFound, Refused."""
        (answer,) = await self._replica.propose([encode_command(command)])
        if isinstance(answer, Refusal):
            raise (NotFound if answer.code == "not-found" else Refused)(answer.reason)


class LoneCluster:
    """Of `grampus up`."""

    def __init__(
        self,
        name: str,
        address: str,
        identity: Identity,
        replica: Replica,
        apply_version: Callable[[], int],
        snapshots: Snapshots,
    ) -> None:
        self._name = name
        self._address = address
        self._identity = identity
        self._replica = replica
        self._apply_version = apply_version
        self.snapshot = snapshots.snapshot

    async def make_token(self, role: str, name: str, life: int) -> tuple[str, int]:
        raise Refused(_ALONE)

    async def list_tokens(self) -> list[TokenRow]:
        return []

    async def revoke(self, what: str, name: str) -> None:
        raise Refused(_ALONE)

    async def ask(self, action: str, name: str) -> bytes:
        if action != "status":
            raise Refused(_ALONE)
        replica, me = self._replica, self._identity
        row = Line(self._name, me.node, self._address, "voter", "leads", 0, "")
        roll = Roll(
            cluster=me.cluster,
            history=me.history,
            server=self._name,
            leader=self._name,
            led=0,
            term=replica.term,
            commit=replica.applied_index,
            applied=replica.applied_index,
            members=(row,),
            can_lose=0,
            apply_version=self._apply_version(),
            advice=(
                "This node is alone. To make its folder the first server of a cluster, stop it, and"
                " start it with: grampus server start --init",
            ),
        )
        return msgspec.json.encode(roll)


class ServedCluster:
    """Of `grampus server`."""

    def __init__(self, steward: Steward, snapshots: Snapshots, tokens: TokenDesk) -> None:
        self.make_token = tokens.make
        self.list_tokens = tokens.list
        self.revoke = tokens.revoke
        self.ask = steward.ask
        self.snapshot = snapshots.snapshot
