"""All that one server of a cluster holds between two snapshots, put together and taken apart.

Order of the start: ledger, log and Raft, the office, the ports; `ready` is said when a read barrier
has passed for the first time, so when a majority is there. The end runs backwards; a leader gives
the lead away first. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from grampus import versions
from grampus.adapters import Explainer, LogReader, NodeStatus
from grampus.answers import decode_answers, encode_answers
from grampus.api.encryption import Encryption
from grampus.api.ports import Ports
from grampus.api.wakes import Wakes
from grampus.blobs import Blobs
from grampus.clock import SystemClock
from grampus.cluster.desk import KeyDesk
from grampus.cluster.monitor import About, server_key
from grampus.cluster.server import ClusterServer
from grampus.cluster_face import Checks, ServedCluster, Snapshots
from grampus.config import Config
from grampus.consensus.members import NoMember
from grampus.consensus.peer_desk import PeerDesk
from grampus.consensus.peers import Peers
from grampus.consensus.pins import Pins
from grampus.consensus.port import Stopped
from grampus.consensus.replica import RaftReplica
from grampus.consensus.roll import Load
from grampus.consensus.steward import Steward
from grampus.consensus.trail import OLDER, Trail
from grampus.errors import OutcomeUnknown
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
from grampus.parts import Parts
from grampus.patience import hear_cancel
from grampus.protocol import HELLO_FRAME, HELLO_TIMEOUT, Hello, Message
from grampus.relay import ClockDoubt, Explain, LeaderDesk, Logs, Presence
from grampus.rpc.codec import Codec
from grampus.rpc.server import Server
from grampus.runs.change import Graphs
from grampus.runs.proposer import Proposer
from grampus.runs.queries import Queries
from grampus.sdk import discovery
from grampus.server.arrival import Place
from grampus.server.audit import Audit, AuditRounds
from grampus.server.blob_gather import BlobGather
from grampus.server.blob_spread import BlobSpread
from grampus.server.directory import MemberDirectory
from grampus.server.entrance import make_admission, make_join_desk, make_token_desk
from grampus.server.keep_alives import KeepAlives
from grampus.server.manners import Manners, what_to_do
from grampus.server.peer_relay import PeerRelay
from grampus.server.reception import Reception
from grampus.server.storage import Storage
from grampus.worker.identity import boot_id

if TYPE_CHECKING:
    from grampus.api.server import ApiServer


class ServerNode:
    """Everything that one process of `grampus server` holds, between two snapshots."""

    def __init__(
        self,
        config: Config,
        place: Place,
        encryption: Encryption | None,
        trail: Trail,
        group: asyncio.TaskGroup,
        storage: Storage,
        replica: RaftReplica,
        peers: Peers,
    ) -> None:
        self._config = config
        self._encryption = encryption
        self._trail = trail
        self._place = place
        self._group = group
        self._replica = replica
        self._peers = peers
        ledger, reads, readers = storage.ledger, storage.reads, storage.readers
        self._storage = storage
        self._clock = clock = Timekeeper(SystemClock(), config.data / "clock.json", boot_id())
        self._wakes = Wakes()
        self._parts = Parts(group, self._reason)
        self._proposer = Proposer(replica)
        self._intake = Intake(self._proposer, clock)
        blobs = Blobs(config.data / "blobs")
        self._blobs = BlobSpread(blobs, replica, peers)
        desk = BlobDesk(blobs)
        self._gather = BlobGather(blobs, reads, self._blobs)
        self._keys = keys = ClusterServer(
            replica, storage.key_reads, SystemClock(), place.history, os.urandom
        )
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
        self._explainer = Explainer(
            reads, lambda: self._office.scheduler, self._logs.read, self._clock
        )
        self._relay = PeerRelay(replica, peers)
        self._reception = Reception(
            config.name, place.cluster, make_admission(place, readers), self._roster,
            make_join_desk(place, replica, readers, clock),
            PeerDesk(
                replica, encode_answers,
                msgspec.structs.replace(place.hello("control"), age=ledger.age), self._steward,
                apply_version=lambda: ledger.apply_version, trail=trail, left=peers.refused,
                pins=Pins(group),
            ),
            desk,
            LeaderDesk(self._status, self._logs, self._explainer, clock),
            KeyDesk(keys, MemberDirectory(replica)),
        )  # fmt: skip
        self._snapshots = Snapshots(
            config.data / "snapshots" / "api", ledger.snapshot, blobs, self._blobs.fetch
        )
        self._keep_alives = KeepAlives(
            keys, replica, place, group, None if encryption is None else encryption.nodes
        )
        replica.subscribe(self._wakes.hear)

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
        storage = Storage.open(config.data, stack)
        tls = None if encryption is None else encryption.nodes
        age = storage.ledger.age

        def hello(lane: str) -> Hello:
            return msgspec.structs.replace(
                place.hello(lane), stamp=trail.newest, term=replica.term, last=replica.last_index,
                age=age,
            )  # fmt: skip

        peers = Peers(place.me.id, hello, decode_answers, group, tls, trail)
        stack.callback(peers.close)
        ledger, generation = storage.ledger, storage.generation
        replica = await RaftReplica.open(place.me.id, generation, ledger, peers, light=ledger.light)
        return cls(config, place, encryption, trail, group, storage, replica, peers)

    def _make_office(self, blobs: Blobs) -> Office:
        config, proposer, clock = self._config, self._proposer, self._clock
        graphs = Graphs()
        reads, readers = self._storage.reads, self._storage.readers
        queries, loading = Queries(readers, graphs), Loading(readers, graphs)

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
        replica, ledger, clock = self._replica, self._storage.ledger, self._clock
        common = self._steward.common_version
        upgrade = Upgrade(replica, clock, lambda: ledger.apply_version, common)
        return [upgrade, AuditRounds(replica, clock, lambda: replica.members.voters)]

    async def run(self, ready: Callable[[str], None], waits: Callable[[str], None]) -> None:
        """Until cancelled, or until a part of it fails. Raises Installed."""
        config, group, encryption = self._config, self._group, self._encryption
        listener = Server(
            Codec[Message](Message), self._reception, self._reception.greet, group,
            opened=self._reception.opened, hello_limit=HELLO_FRAME, hello_timeout=HELLO_TIMEOUT,
            tls=None if encryption is None else encryption.nodes,
        )  # fmt: skip
        await listener.start(config.listen.host, config.listen.node_port)
        (replica,) = self._parts.start(self._replica.run())
        try:
            api = await self._open_api()
        except BaseException:
            # Before ledger and log are closed under it.
            await _ended(replica)
            raise
        ca = None if encryption is None else encryption.ca
        discovery.publish(config.state, api.url, self._place.api_token, os.getpid(), ca)
        running = self._parts.start(
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
        (present,) = self._parts.start(self._manners.present(self._gather))
        try:
            await self._parts.fail()
        finally:
            hear_cancel()
            present.cancel()
            await asyncio.wait([present])
            discovery.withdraw(config.state, api.url, os.getpid())
            self._office.stop()
            if self._parts.failure is None:
                await self._manners.give_lead_away()
            self._wakes.close()
            self._keys.close()
            self._keep_alives.close()
            await api.stop()
            await listener.close()
            for task in running:
                task.cancel()
            await _ended(replica)

    async def _open_api(self) -> ApiServer:
        """The servers agree on a leader while each loads its API, which takes about as long."""
        await asyncio.to_thread(import_module, "grampus.api.app")
        api = self._api()
        await api.start()
        return api

    def _load(self, name: str) -> Load | None:
        _, found = self._storage.key_reads.get(server_key(name))
        if found is None:
            return None
        try:
            about = msgspec.json.decode(found.value, type=About)
        except msgspec.MsgspecError:
            return None  # any user may write there
        return Load(about.cpu, about.memory, about.lacks)

    def _reason(self, error: Exception) -> Exception:
        """Whoever asks a replica that has ended hears of it, maybe before its own word comes."""
        ended = self._replica.failure
        if isinstance(error, Stopped | OutcomeUnknown) and isinstance(ended, Exception):
            error = ended
        if isinstance(error, NoMember) and str(error) == OLDER:
            # So it must not vote, also after another start.
            self._trail.give_up()
            return NoMember(what_to_do(OLDER, self._place.me.name))
        return error

    def _api(self) -> ApiServer:
        from grampus.api.app import create_app
        from grampus.api.server import ApiServer

        listen = self._config.listen
        status, logs, explainer, relay = self._status, self._logs, self._explainer, self._relay
        ports = Ports(
            propose=self._proposer.propose,
            reads=self._storage.reads,
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
                make_token_desk(self._place, self._replica, self._storage.readers, self._clock),
                Checks(self._audit, lambda: self._replica.members),
            ),
            keys=self._keys,
            keep_alive=self._keep_alives.keep,
            barrier=self._replica.read_barrier,
            unheard=lambda: self._replica.unheard,
        )
        app = create_app(
            ports, self._wakes, token=self._place.api_token, listen=listen.host,
            token_file=str(self._config.data / "token"), cluster_id=self._place.cluster,
        )  # fmt: skip
        context = None if self._encryption is None else self._encryption.context
        return ApiServer(app, listen.host, listen.port, context)


async def _ended(replica: asyncio.Task[None]) -> None:
    if not replica.cancelling():
        # When a part of the group has failed, it was cancelled already, and a second time would end
        # it before its threads have let go of the ledger and the log.
        replica.cancel()
    await asyncio.wait([replica])
