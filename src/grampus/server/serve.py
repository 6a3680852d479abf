"""The composition root of `grampus server start`: one server of a cluster.

Order of the start: the folder is ours and belongs to a cluster, then ledger, log and Raft, the
office, the ports; `ready` is said when a read barrier has passed for the first time, so when a
majority is there. The end runs backwards; a leader gives the lead away first. When a snapshot was
laid down, everything but the folder's lock is closed and opened anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from grampus import descriptors, secret_file, versions
from grampus.adapters import Explainer, LogReader, NodeStatus
from grampus.answers import decode_answers, encode_answers
from grampus.api.encryption import Encryption
from grampus.api.ports import Ports
from grampus.api.wakes import Wakes
from grampus.blobs import Blobs
from grampus.clock import SystemClock
from grampus.cluster import tokens
from grampus.cluster.admission import Admission
from grampus.cluster.commands import encode_command
from grampus.cluster.desk import KeyDesk
from grampus.cluster.join_desk import JoinDesk
from grampus.cluster.join_token import PLAIN
from grampus.cluster.monitor import About, server_key
from grampus.cluster.reads import KeyReads
from grampus.cluster.server import ClusterServer
from grampus.cluster.token_commands import UseToken
from grampus.cluster_face import Checks, ServedCluster, Snapshots, TokenDesk
from grampus.config import Config
from grampus.consensus.bearer import void_key
from grampus.consensus.disk import Disk
from grampus.consensus.generation import Generation
from grampus.consensus.members import NoMember
from grampus.consensus.peer_desk import PeerDesk
from grampus.consensus.peers import Peers
from grampus.consensus.port import Stopped
from grampus.consensus.replica import RaftReplica
from grampus.consensus.roll import Load
from grampus.consensus.snapshots import LEDGER, Installed
from grampus.consensus.steward import Steward
from grampus.consensus.trail import Trail
from grampus.consensus.writer import SWITCH_INTERVAL
from grampus.database import Database
from grampus.ending import explained
from grampus.errors import GrampusError, OutcomeUnknown
from grampus.ledger import Ledger
from grampus.master.blob_desk import BlobDesk
from grampus.master.briefs import Briefs
from grampus.master.driver import Master
from grampus.master.firing import ScheduleDriver
from grampus.master.intake import Intake
from grampus.master.loading import Loading
from grampus.master.office import Clerk, Office
from grampus.master.retention import Retention
from grampus.master.roster import Roster
from grampus.master.timekeeper import Timekeeper
from grampus.master.upgrade import Upgrade
from grampus.patience import hear_cancel
from grampus.protocol import HELLO_FRAME, HELLO_TIMEOUT, Hello, Message
from grampus.relay import ClockDoubt, Explain, LeaderDesk, Logs, Presence
from grampus.rpc.certificates import authority_hash
from grampus.rpc.codec import Codec
from grampus.rpc.server import Server
from grampus.rpc.tls_folder import TlsFolder
from grampus.runs.change import Graphs
from grampus.runs.events import Event
from grampus.runs.proposer import Proposer
from grampus.runs.queries import Queries
from grampus.runs.reads import Reads
from grampus.sdk import discovery
from grampus.server.arrival import Place, Plan, arrive, as_before, open_folder
from grampus.server.audit import Audit, AuditRounds
from grampus.server.blob_gather import BlobGather
from grampus.server.blob_spread import BlobSpread
from grampus.server.directory import MemberDirectory
from grampus.server.manners import Manners, what_to_do
from grampus.server.peer_relay import PeerRelay
from grampus.server.reception import Reception
from grampus.worker.identity import boot_id

if TYPE_CHECKING:
    from grampus.api.server import ApiServer

log = logging.getLogger("grampus.server")


async def run_server(
    config: Config,
    plan: Plan,
    ready: Callable[[str], None],
    waits: Callable[[str], None],
) -> None:
    """Runs one server until it is cancelled. `waits` is told, now and then, what it waits for.

    Raises GrampusError when it cannot start or go on."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    descriptors.take_all()
    with contextlib.ExitStack() as stack:
        folder = open_folder(config.data, config.name)
        stack.callback(folder.close)
        config = as_before(config, folder)
        place = await arrive(folder, config.listen, config.name, plan, SystemClock().now())
        secret_file.write(config.data / "token", place.api_token.encode() + b"\n")
        try:
            trail = Trail.begin(config.data, Disk(), partial(secrets.randbits, 63))
        except NoMember as error:
            raise NoMember(what_to_do(str(error), config.name)) from error
        told, encryption = _Once(ready), None
        if place.encrypted:
            clock, host = SystemClock(), config.listen.host
            encryption = Encryption(config.data, place.cluster, config.name, host, clock)
        while True:
            try:
                async with asyncio.TaskGroup() as group, contextlib.AsyncExitStack() as opened:
                    server = await ServerNode.open(config, place, encryption, trail, group, opened)
                    await server.run(told, waits)
            except* Installed as snapshots:
                log.info("%s: this server opens anew", snapshots.exceptions[0])
            except* (GrampusError, OSError) as errors:
                raise explained(errors) from errors


class _Once:
    def __init__(self, call: Callable[[str], None]) -> None:
        self._call: Callable[[str], None] | None = call

    def __call__(self, text: str) -> None:
        call, self._call = self._call, None
        if call is not None:
            call(text)


class ServerNode:
    """Everything that one process of `grampus server` holds, between two snapshots."""

    def __init__(
        self,
        config: Config,
        place: Place,
        encryption: Encryption | None,
        trail: Trail,
        group: asyncio.TaskGroup,
        replica: RaftReplica,
        peers: Peers,
        ledger: Ledger,
        reads: Reads,
        readers: Database,
        keys: ClusterServer,
        key_reads: KeyReads,
    ) -> None:
        self._key_reads = key_reads
        self._config = config
        self._keys = keys
        self._encryption = encryption
        self._trail = trail
        self._place = place
        self._group = group
        self._replica = replica
        self._peers = peers
        self._reads = reads
        self._readers = readers
        self._clock = clock = Timekeeper(SystemClock(), config.data / "clock.json", boot_id())
        self._wakes = Wakes()
        self._failure: Exception | None = None
        self._failed = asyncio.Event()
        self._proposer = Proposer(replica)
        self._intake = Intake(self._proposer, clock)
        blobs = Blobs(config.data / "blobs")
        self._blobs = BlobSpread(blobs, replica, peers)
        desk = BlobDesk(blobs)
        self._gather = BlobGather(blobs, reads, self._blobs)
        self._ledger = ledger
        replica.admit = ledger.admit
        replica.watched = lambda: keys.feed.waited
        self._steward = Steward(
            replica, peers, place.me, place.cluster, place.history,
            apply_version=lambda: ledger.apply_version, newest=versions.newest(),
            load=self._load,
        )  # fmt: skip
        self._manners = Manners(place, replica, self._steward, encryption)
        self._audit = Audit(
            replica, place.me.id, place.me.name, lambda: replica.members.voters, clock
        )
        ledger.auditor = self._audit
        self._roster = Roster(
            config.name, place.cluster, lambda hello: True, self._proposer, self._intake,
            BlobDesk(blobs, self._blobs), clock, MemberDirectory(replica),
        )  # fmt: skip
        self._office = self._roster.office = self._make_office(blobs)
        self._retention = Retention(
            self._proposer, reads, blobs, clock, config.retention, self._office.held.is_set
        )
        self._status = NodeStatus(replica, self._office, self._roster)
        self._logs = LogReader(reads, self._roster)
        self._explainer = Explainer(reads, lambda: self._office.scheduler, self._logs, self._clock)
        self._relay = PeerRelay(replica, peers)
        self._reception = Reception(
            config.name, place.cluster, self._admission(), self._roster, self._join_desk(),
            PeerDesk(
                replica, encode_answers, place.hello("control"), self._steward,
                apply_version=lambda: ledger.apply_version, trail=trail,
            ),
            desk,
            LeaderDesk(self._status, self._logs, self._explainer, clock),
            KeyDesk(keys, MemberDirectory(replica)),
        )  # fmt: skip
        self._snapshots = Snapshots(
            config.data / "snapshots" / "api", ledger.snapshot, blobs, self._blobs.fetch
        )
        replica.subscribe(self._wake)

    @classmethod
    async def open(
        cls,
        config: Config,
        place: Place,
        encryption: Encryption | None,
        trail: Trail,
        group: asyncio.TaskGroup,
        stack: contextlib.AsyncExitStack,
    ) -> ServerNode:
        """Opens the ledger and the log; what it opens, `stack` closes."""
        generation = Generation.current(config.data)
        generation.sweep()
        for part in (generation.ledger, generation.log):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = generation.ledger / LEDGER
        ledger = Ledger(path)
        stack.callback(ledger.close)
        tls = None if encryption is None else encryption.nodes

        def hello(lane: str) -> Hello:
            stands = {"stamp": trail.newest, "term": replica.term, "last": replica.last_index}
            return msgspec.structs.replace(place.hello(lane), **stands)

        peers = Peers(place.me.id, hello, decode_answers, group, tls, trail)
        stack.callback(peers.close)
        replica = await RaftReplica.open(place.me.id, generation, ledger, peers, light=ledger.light)
        reads = Reads(path)
        stack.callback(reads.close)
        readers = Database.open(path, readonly=True)
        stack.callback(readers.close)
        key_reads = KeyReads(path)
        stack.callback(key_reads.close)
        keys = ClusterServer(replica, key_reads, SystemClock(), place.history, os.urandom)
        return cls(
            config,
            place,
            encryption,
            trail,
            group,
            replica,
            peers,
            ledger,
            reads,
            readers,
            keys,
            key_reads,
        )

    def _make_office(self, blobs: Blobs) -> Office:
        config, proposer, reads, clock = self._config, self._proposer, self._reads, self._clock
        graphs = Graphs()
        queries, loading = Queries(self._readers, graphs), Loading(self._readers, graphs)

        def appoint() -> Master:
            clock.begin(queries.newest_time())
            return Master(proposer, loading, Briefs(queries, blobs.put), self._roster, clock)

        return Office(
            config.name, self._replica, proposer, clock,
            appoint=appoint,
            dismiss=self._roster.dismiss,
            hire=lambda: [ScheduleDriver(proposer, reads, clock), self._steward, *self._upkeep()],
            chores=[self._roster.watch],
        )  # fmt: skip

    def _upkeep(self) -> list[Clerk]:
        replica, ledger, clock = self._replica, self._ledger, self._clock
        common = self._steward.common_version
        upgrade = Upgrade(replica, clock, lambda: ledger.apply_version, common)
        return [upgrade, AuditRounds(replica, clock, lambda: replica.members.voters)]

    def _admission(self) -> Admission:
        place = self._place
        return Admission(
            place.cluster, lambda name: tokens.worker_key(self._readers, name),
            encrypted=place.encrypted, server_secret=place.secret,
        )  # fmt: skip

    def _token_desk(self) -> TokenDesk:
        place = self._place
        authority = PLAIN
        if place.encrypted:
            authority = authority_hash(TlsFolder(place.folder).authority_certificate())
        return TokenDesk(self._replica, self._readers, authority, self._clock, os.urandom)

    def _join_desk(self) -> JoinDesk:
        place = self._place

        async def propose(command: UseToken) -> object:
            (answer,) = await self._replica.propose([encode_command(command)])
            return answer

        async def find_token(token: str) -> tokens.TokenRow | None:
            await self._replica.read_barrier()
            return tokens.find_token(self._readers, token)

        return JoinDesk(
            place.cluster, place.history,
            tls=TlsFolder(place.folder) if place.encrypted else None,
            server_secret=place.secret, propose=propose, find_token=find_token,
            servers=lambda: [member.address for member in self._replica.members.known],
            clock=self._clock, void=lambda key: void_key(self._replica.members, key),
        )  # fmt: skip

    async def run(self, ready: Callable[[str], None], waits: Callable[[str], None]) -> None:
        """Until cancelled, or until a part of it fails. Raises Installed."""
        config, group, encryption = self._config, self._group, self._encryption
        listener = Server(
            Codec[Message](Message), self._reception, self._reception.greet, group,
            opened=self._reception.opened, hello_limit=HELLO_FRAME, hello_timeout=HELLO_TIMEOUT,
            tls=None if encryption is None else encryption.nodes,
        )  # fmt: skip
        await listener.start(config.listen.host, config.listen.node_port)
        replica = group.create_task(self._part(self._replica.run()))
        try:
            api = await self._open_api()
        except BaseException:
            # Before ledger and log are closed under it.
            await _ended(replica)
            raise
        ca = None if encryption is None else encryption.ca
        discovery.publish(config.state, api.url, self._place.api_token, os.getpid(), ca)
        parts = [
            group.create_task(self._part(work))
            for work in (
                self._intake.run(),
                self._office.run(),
                self._retention.run(),
                self._gather.run(),
                self._keys.run(),
                self._audit.run(),
                self._manners.say_when_ready(api.url, ready, waits),
                self._manners.until(self._replica.void()),
                self._manners.until(self._peers.void),
                self._trail.run(self._peers.stamp),
                self._manners.tell_where(),
                api.run(),
                *([] if encryption is None else [encryption.run()]),
            )
        ]
        present = group.create_task(self._part(self._manners.present(self._gather)))
        try:
            await self._failed.wait()
            assert self._failure is not None
            raise self._failure
        finally:
            hear_cancel()
            present.cancel()
            await asyncio.wait([present])
            discovery.withdraw(config.state, api.url, os.getpid())
            self._office.stop()
            if self._failure is None:
                await self._manners.give_lead_away()
            self._wakes.close()
            self._keys.close()
            await api.stop()
            await listener.close()
            for task in parts:
                task.cancel()
            await _ended(replica)

    async def _open_api(self) -> ApiServer:
        """The servers agree on a leader while each loads its API, which takes about as long."""
        await asyncio.to_thread(import_module, "grampus.api.app")
        api = self._api()
        await api.start()
        return api

    def _load(self, name: str) -> Load | None:
        _, found = self._key_reads.get(server_key(name))
        if found is None:
            return None
        about = msgspec.json.decode(found.value, type=About)
        return Load(about.cpu, about.memory, about.lacks)

    async def _part(self, work: Coroutine[Any, Any, None]) -> None:
        """A part that fails ends the server in order, as if it had been told to stop."""
        try:
            await work
        except Exception as failure:
            error, ended = failure, self._replica.failure
            # Whoever asks a replica that has ended hears of it, maybe before its own word comes.
            if isinstance(error, Stopped | OutcomeUnknown) and isinstance(ended, Exception):
                error = ended
            if self._failure is None:
                self._failure = error
                self._failed.set()
            elif not isinstance(error, GrampusError):
                log.exception("and this failed too")

    def _api(self) -> ApiServer:
        from grampus.api.app import create_app
        from grampus.api.server import ApiServer

        listen = self._config.listen
        status, logs, explainer, relay = self._status, self._logs, self._explainer, self._relay
        ports = Ports(
            propose=self._proposer.propose,
            reads=self._reads,
            blobs=self._blobs,
            read_log=Logs(status, logs, relay),
            explain=Explain(status, explainer, relay),
            presence=Presence(status, relay),
            status=status,
            clock=self._clock,
            clock_doubt=ClockDoubt(status.leads, self._clock, relay),
            entropy=os.urandom,
            cluster=ServedCluster(
                self._steward,
                self._snapshots,
                self._token_desk(),
                Checks(self._audit, lambda: self._replica.members),
            ),
            keys=self._keys,
            barrier=self._replica.read_barrier,
        )
        app = create_app(
            ports, self._wakes, token=self._place.api_token, listen=listen.host,
            token_file=str(self._config.data / "token"),
        )  # fmt: skip
        context = None if self._encryption is None else self._encryption.context
        return ApiServer(app, listen.host, listen.port, context)

    def _wake(self, index: int, facts: Sequence[object]) -> None:
        for fact in facts:
            if isinstance(fact, Event) and fact.run:
                self._wakes.wake(fact.run)


async def _ended(replica: asyncio.Task[None]) -> None:
    if not replica.cancelling():
        # When a part of the group has failed, it was cancelled already, and a second time would end
        # it before its threads have let go of the ledger and the log.
        replica.cancel()
    await asyncio.wait([replica])
