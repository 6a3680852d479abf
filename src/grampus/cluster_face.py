"""What the API tells and does about the cluster: of a lone node, and of a server among others."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import msgspec

from grampus import backup
from grampus.api.ports import LedgerCheck, LedgerState, LedgerSum
from grampus.blobs import Blobs
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
from grampus.consensus.members import Members
from grampus.consensus.port import Replica
from grampus.consensus.roll import Line, Roll
from grampus.database import Database
from grampus.errors import NotFound, Refused
from grampus.rpc.subject import WORKER
from grampus.runs.change import Graphs
from grampus.runs.queries import Queries

if TYPE_CHECKING:
    # A lone node works without grampus_raft, which a steward needs.
    from grampus.consensus.steward import Steward

_ALONE = (
    "this node is alone (grampus up): a cluster is founded in its folder with grampus server start"
    " --init"
)
_WORKERS = (
    "this node is alone (grampus up) and makes no tokens: a worker of this machine joins it with"
    " --token-file DATA/worker-credential, of the node's data folder"
)
_NOBODY = "there is one server only, and none to compare its ledger with"
#: Blobs asked for in one query.
PAGE = 1000
#: Writes a copy of the ledger to a new file; brings a blob here, if it can.
Copy = Callable[[Path], object]
Fetch = Callable[[str], Awaitable[bool]]


async def _nowhere(hash: str) -> bool:
    return False


class Snapshots:
    """Backups for whoever asks; one at a time is begun, in `folder`."""

    def __init__(self, folder: Path, copy: Copy, blobs: Blobs, fetch: Fetch = _nowhere) -> None:
        """`fetch` looks elsewhere for a blob that is not here."""
        self._folder = folder
        self._copy = copy
        self._blobs = blobs
        self._fetch = fetch
        self._busy = asyncio.Lock()

    async def snapshot(self) -> tuple[int, AsyncIterator[bytes]]:
        """Its size, and its bytes. The copy's file is gone as soon as it is open."""
        async with self._busy:
            file, named = await asyncio.to_thread(self._open)
        try:
            contents = await self._gather(named)
        except BaseException:
            file.close()
            raise
        size = os.fstat(file.fileno()).st_size
        return backup.packed_size(size, contents), self._pieces(file, size, contents)

    def _open(self) -> tuple[IO[bytes], list[str]]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            path = Path(folder) / "copy.db"
            self._copy(path)
            db = Database.open(path, readonly=True)
            try:
                named = list(_named(Queries(db, Graphs())))
            finally:
                db.close()
            return path.open("rb"), named

    async def _gather(self, named: list[str]) -> backup.Contents:
        sizes = await asyncio.to_thread(lambda: [self._blobs.size(hash) for hash in named])
        held, missing = {}, []
        for hash, size in zip(named, sizes, strict=True):
            if size < 0 and await self._fetch(hash):
                size = await asyncio.to_thread(self._blobs.size, hash)
            if size < 0:
                missing.append(hash)
            else:
                held[hash] = size
        return backup.Contents(held, tuple(missing))

    async def _pieces(
        self, file: IO[bytes], size: int, contents: backup.Contents
    ) -> AsyncIterator[bytes]:
        pieces = backup.pack(file, size, self._blobs, contents)
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                yield piece
        finally:
            file.close()


def _named(queries: Queries) -> Iterator[str]:
    after = ""
    while page := queries.named_blobs(after, PAGE):
        yield from page
        after = page[-1]


class Auditing(Protocol):
    """Of `server.audit`."""

    async def ask(self) -> int: ...
    def outcome(self, index: int) -> tuple[dict[int, str], str | None]: ...


class Checks:
    """Comparisons of ledgers that a person asks for.

    They are rounds like those that the leader begins: who is wrong stops."""

    def __init__(self, audit: Auditing, members: Callable[[], Members]) -> None:
        self._audit = audit
        self._members = members
        #: Begun here, the newest last.
        self._begun: list[int] = []

    async def begin(self) -> int:
        if len(self._members().known) < 2:
            raise Refused(_NOBODY)
        index = await self._audit.ask()
        self._begun = [*self._begun[-3:], index]
        return index

    def outcome(self, index: int) -> LedgerCheck:
        sums, agreed = self._audit.outcome(index)
        if not sums and index not in self._begun:
            raise NotFound(f"nothing is known here of a check at entry {index}: begin another one")
        members = self._members()
        split = agreed is None and all(voter in sums for voter in members.voters)
        rows = []
        for member in sorted(members.known, key=lambda m: (m.name, m.id)):
            told = sums.get(member.id, "")
            state: LedgerState = "waits"
            if told and (agreed is not None or split):
                state = "unclear" if split else ("same" if told == agreed else "differs")
            rows.append(LedgerSum(member.name, state, told))
        return LedgerCheck(index, agreed, tuple(rows))


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
        raise Refused(_WORKERS if role == WORKER else _ALONE)

    async def begin_check(self) -> int:
        raise Refused(_NOBODY)

    def check(self, index: int) -> LedgerCheck:
        raise Refused(_NOBODY)

    async def list_tokens(self) -> list[TokenRow]:
        return []

    async def revoke(self, what: str, name: str) -> None:
        raise Refused(_ALONE)

    async def ask(self, action: str, name: str) -> bytes:
        if action != "status":
            raise Refused(_ALONE)
        replica, me = self._replica, self._identity
        version = self._apply_version()
        row = Line(self._name, me.node, self._address, "voter", "leads", 0, "", version)
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
            apply_version=version,
            advice=(
                "This node is alone. To make its folder the first server of a cluster, stop it, and"
                " start it with: grampus server start --init",
            ),
        )
        return msgspec.json.encode(roll)


class ServedCluster:
    """Of `grampus server`."""

    def __init__(
        self, steward: Steward, snapshots: Snapshots, tokens: TokenDesk, checks: Checks
    ) -> None:
        self.begin_check = checks.begin
        self.check = checks.outcome
        self.make_token = tokens.make
        self.list_tokens = tokens.list
        self.revoke = tokens.revoke
        self.ask = steward.ask
        self.snapshot = snapshots.snapshot
