"""Clients of a simulated cluster: they read and write a few keys through any server, one thing at a
time each, and write down what they were told.

Rule: only what certainly did not happen is tried again, under a value of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from grampus.cluster.commands import Command, TxnDone, Written, encode_command
from grampus.cluster.commands import Compare as CompareValue
from grampus.cluster.commands import Put as PutCommand
from grampus.cluster.commands import PutOp as PutPart
from grampus.cluster.commands import Txn as TxnCommand
from grampus.cluster.queries import Queries
from grampus.consensus.port import Stopped
from grampus.errors import (
    GrampusError,
    NoQuorum,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Refused,
)
from grampus.testing.cluster_watch import ClusterWatch
from grampus.testing.history import (
    Action,
    Decided,
    Get,
    Got,
    Operation,
    Put,
    Result,
    Txn,
    Wrote,
    swap,
)
from grampus.testing.next_version import NEXT, Mark, encode_mark
from grampus.testing.server import SimServer
from grampus.testing.world import World

KEYS = 5
#: Seconds that an answer may take: the deadline of a proposal, and a bit.
ANSWERED = 15.0


class Users:
    def __init__(
        self, world: World, watch: ClusterWatch, up: Callable[[], list[SimServer]]
    ) -> None:
        self._world = world
        self._watch = watch
        self._up = up
        self.history: list[Operation] = []
        #: Who waits for an answer of which server, since when.
        self.asking: dict[str, tuple[SimServer, float]] = {}
        self._values = 0
        self._last: dict[bytes, bytes] = {}

    def act(self, name: str) -> None:
        """One thing, unless this client still waits."""
        servers = self._up()
        if name in self.asking or not servers:
            return
        rng = self._world.rng
        server = rng.choice(servers)
        kinds = ["get", "put", "put", "swap", "many"]
        if server.knows == NEXT:
            kinds.append("mark")
        self.ask(name, server, rng.choice(kinds))

    def ask(self, name: str, server: SimServer, kind: str) -> None:
        if name not in self.asking and server.loop.alive:
            self.begin(name, server, kind, b"k%d" % self._world.rng.randrange(KEYS))

    def begin(self, name: str, server: SimServer, kind: str, key: bytes) -> None:
        self.asking[name] = server, self._world.time
        server.loop.begin(self._one(name, server, kind, key))

    def forget(self, server: SimServer) -> None:
        """Its process is gone: nobody knows what became of what it was asked."""
        for name, (asked, _) in list(self.asking.items()):
            if asked is server:
                del self.asking[name]

    def patient(self) -> None:
        """From now on nothing is in the way of an answer."""
        for name, (server, _) in self.asking.items():
            self.asking[name] = server, self._world.time

    def late(self) -> str:
        """Who waits for longer than anybody has to; "" for nobody."""
        now = self._world.time
        return ", ".join(
            f"{name} at {server.name}"
            for name, (server, since) in self.asking.items()
            if now - since > ANSWERED and server.loop.held_until < now - ANSWERED
        )

    async def _one(self, name: str, server: SimServer, kind: str, key: bytes) -> None:
        try:
            for _ in range(self._world.rng.randint(1, 3)):
                self.asking[name] = server, self._world.time
                if await self._try(name, server, kind, key):
                    return
                others = self._up()
                if server not in others:
                    return
        finally:
            if self.asking.get(name, (None, 0))[0] is server:
                del self.asking[name]

    async def _try(self, name: str, server: SimServer, kind: str, key: bytes) -> bool:
        """False when nothing happened."""
        if kind == "mark":
            return await self._mark(server, key)
        keys = [b"k%d" % number for number in range(KEYS)] if kind == "many" else [key]
        actions = [self._action(kind, key) for key in keys]
        called = self._micros()
        if kind == "get":
            result = await self._read(server, key)
            if result is None:
                return False
            self.history.append(Operation(name, called, self._micros(), actions[0], result))
            return True
        # Until it is answered, it may have happened.
        places = range(len(self.history), len(self.history) + len(actions))
        clients = [f"{name}.{at}" for at in range(len(actions))]
        self.history += [
            Operation(client, called, None, action, None)
            for client, action in zip(clients, actions, strict=True)
        ]
        commands = [encode_command(self._command(server, action)) for action in actions]
        self._watch.asked(commands)
        replica = server.replica
        if replica is None:
            for place in places:
                self.history[place] = _NOTHING
            return False
        try:
            answers = await replica.propose(commands)
        except GrampusError as error:
            if not isinstance(error, Stopped | OutcomeUnknown | NotLeader | NoQuorum | Overloaded):
                raise
            self._watch.refused(commands, error)
            if isinstance(error, OutcomeUnknown):
                return True
            for place in places:
                self.history[place] = _NOTHING
            return False
        for place, client, action, command, answer in zip(
            places, clients, actions, commands, answers, strict=True
        ):
            self._watch.answered(command)
            self.history[place] = Operation(client, called, self._micros(), action, _result(answer))
        return True

    async def _mark(self, server: SimServer, key: bytes) -> bool:
        """What only the next version can do."""
        replica = server.replica
        if replica is None:
            return False
        commands = [encode_mark(Mark(self._world.now(), key))]
        try:
            answers = await replica.propose(commands)
        except GrampusError as error:
            if not isinstance(error, Refused | Stopped | OutcomeUnknown | NoQuorum):
                raise
            self._watch.seen[f"mark: {type(error).__name__}"] += 1
            return isinstance(error, OutcomeUnknown)
        assert answers == ["marked"]
        assert self._watch.counted, "what only the next version knows is done before it counts"
        self._watch.seen["marked"] += 1
        return True

    def _micros(self) -> int:
        return int(self._world.time * 1e6)

    def _action(self, kind: str, key: bytes) -> Action:
        if kind == "get":
            return Get(key)
        self._values += 1
        value = b"v%d" % self._values
        old = self._last.get(key)
        if self._world.rng.random() < 0.02:
            value = value.ljust(60_000, b".")
        self._last[key] = value
        return swap(key, old, value) if kind == "swap" else Put(key, value)

    def _command(self, server: SimServer, action: Action) -> Command:
        at = self._world.now() + server.machine.skew
        if isinstance(action, Put):
            return PutCommand(at, action.key, action.value)
        assert isinstance(action, Txn)
        held, put = action.compares[0], action.then[0]
        assert isinstance(put, Put)
        old = getattr(held, "value", None)
        compare = (
            CompareValue(held.key, "version", "=", 0)
            if old is None
            else CompareValue(held.key, "value", "=", old)
        )
        return TxnCommand(at, (compare,), (PutPart(put.key, put.value),), ())

    async def _read(self, server: SimServer, key: bytes) -> Got | None:
        replica = server.replica
        if replica is None:
            return None
        try:
            await replica.read_barrier()
        except GrampusError as error:
            if not isinstance(error, Stopped | NoQuorum):
                raise
            return None
        if server.ledger is None:
            return None
        revision, found = Queries(server.ledger.database).get(key)
        self._watch.seen["read"] += 1
        return (
            Got(None, 0, revision) if found is None else Got(found.value, found.modified, revision)
        )

    def finished(self) -> list[Operation]:
        return [operation for operation in self.history if operation is not _NOTHING]


#: In the place of what did not happen.
_NOTHING = Operation("", 0, 0, Get(b""), Got(None))


def _result(answer: object) -> Result:
    if isinstance(answer, Written):
        return Wrote(answer.revision)
    assert isinstance(answer, TxnDone), f"a strange answer: {answer!r}"
    return Decided(answer.succeeded, answer.revision)
