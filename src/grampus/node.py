"""The composition root of `grampus up`: a server and a worker in one process, the warden beside it.

Order of the start: the folder is ours, then the log and the ledger, the master, the ports, the
worker; `ready` is said when the first session is open. The end runs backwards: nothing new is
started, attempts get their grace, their last reports are committed, then everything closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hmac
import logging
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from grampus import secret_file, versions
from grampus.adapters import Explainer, LogReader, NodeStatus
from grampus.api.app import create_app
from grampus.api.blob_files import BlobFiles
from grampus.api.ports import Ports
from grampus.api.server import ApiServer
from grampus.api.wakes import Wakes
from grampus.blobs import Blobs
from grampus.clock import SystemClock
from grampus.cluster.desk import KeyDesk
from grampus.cluster.lanes import Lanes
from grampus.cluster.reads import KeyReads
from grampus.cluster.server import ClusterServer
from grampus.cluster_face import LoneCluster, Snapshots
from grampus.config import Config
from grampus.consensus.folder import ENTROPY, DataFolder
from grampus.consensus.generation import Generation
from grampus.consensus.introduction import introduced
from grampus.consensus.solo import SoloLog
from grampus.consensus.writer import SWITCH_INTERVAL
from grampus.database import Database
from grampus.ending import explained
from grampus.errors import FolderError, GrampusError
from grampus.ledger import Ledger
from grampus.loopback import is_own
from grampus.master.blob_desk import BlobDesk
from grampus.master.briefs import Briefs
from grampus.master.driver import Master
from grampus.master.firing import ScheduleDriver
from grampus.master.intake import Intake
from grampus.master.loading import Loading
from grampus.master.office import Office
from grampus.master.retention import Retention
from grampus.master.roster import Alone, Roster
from grampus.master.timekeeper import Timekeeper
from grampus.master.upgrade import Upgrade
from grampus.parts import Parts
from grampus.patience import hear_cancel
from grampus.protocol import HELLO_FRAME, HELLO_TIMEOUT, Hello, Message
from grampus.relay import ClockDoubt, Explain, Logs, NoRelay, Presence
from grampus.rpc.codec import Codec
from grampus.rpc.server import Server
from grampus.runs.change import Graphs
from grampus.runs.proposer import Proposer
from grampus.runs.queries import Queries
from grampus.runs.reads import Reads
from grampus.sdk import discovery
from grampus.worker.driver import Worker
from grampus.worker.identity import boot_id, machine_id

if TYPE_CHECKING:
    from grampus.api.encryption import Encryption

log = logging.getLogger("grampus.node")
#: Random bytes of a secret.
TOKEN_BYTES = 24
#: In the data folder: what a worker shows that joins this node.
WORKER_CREDENTIAL = "worker-credential"
#: The node port is for workers of this machine: it is not opened to the network.
LOOPBACK = "127.0.0.1"


async def run_up(config: Config, ready: Callable[[str], None], *, detach: bool = False) -> None:
    """Runs one node until it is cancelled; then ends it in order and raises CancelledError.

    With `detach`, or when it fails, attempts go on and are taken over at the next start. Raises
    FolderError, Refused or another GrampusError when it cannot start or go on."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    async with contextlib.AsyncExitStack() as stack:
        node = await Node.open(config, stack)
        try:
            async with asyncio.TaskGroup() as group:
                await node.run(group, ready, detach)
        except* (GrampusError, OSError) as errors:
            raise explained(errors) from errors


class Node:
    """Everything that one process of `grampus up` holds."""

    def __init__(
        self,
        config: Config,
        folder: DataFolder,
        ledger: Ledger,
        replica: SoloLog,
        reads: Reads,
        readers: Database,
        keys: ClusterServer,
    ) -> None:
        self._config = config
        self._clock = Timekeeper(SystemClock(), config.data / "clock.json", boot_id())
        self._replica = replica
        self._reads = reads
        self._keys = keys
        self._blobs = Blobs(config.data / "blobs")
        self._wakes = Wakes()
        # Workers show this to the node port: our own, and those that join with a copy of the file.
        self._credential = secret_of(config.data / WORKER_CREDENTIAL)
        self._cluster, self._folder_id = folder.identity.cluster, folder.identity.node
        self._token_file = config.data / "token"
        self._token = secret_of(self._token_file)
        self._proposer = Proposer(replica)
        self._intake = Intake(self._proposer, self._clock)
        self._roster = Roster(
            config.name, self._cluster, self._admits, self._proposer, self._intake,
            BlobDesk(self._blobs), self._clock,
        )  # fmt: skip
        self._office = self._roster.office = self._make_office(readers, ledger)
        address = str(config.listen)
        self._cluster_face = LoneCluster(
            config.name, address, folder.identity, replica, lambda: ledger.apply_version,
            Snapshots(config.data / "snapshots", ledger.snapshot, self._blobs),
        )  # fmt: skip
        self._status = NodeStatus(replica, self._office, self._roster)
        self._logs = LogReader(reads, self._roster)
        self._explainer = Explainer(
            reads, lambda: self._office.scheduler, self._logs.read, self._clock
        )
        self._relay = NoRelay()
        replica.subscribe(self._wakes.hear)
        replica.admit = ledger.admit

    def _make_office(self, readers: Database, ledger: Ledger) -> Office:
        """Its master and its clerks are made when this node leads, which a lone one always does."""
        config, proposer, reads, clock = self._config, self._proposer, self._reads, self._clock
        graphs = Graphs()
        queries, loading = Queries(readers, graphs), Loading(readers, graphs)
        retention = Retention(proposer, reads, self._blobs, clock, config.retention)

        def appoint() -> Master:
            clock.begin(queries.newest_time())
            briefs = Briefs(queries, self._blobs.put)
            return Master(proposer, loading, briefs, self._roster, clock)

        return Office(
            config.name, self._replica, proposer, clock,
            appoint=appoint,
            dismiss=self._roster.dismiss,
            hire=lambda: [
                ScheduleDriver(proposer, reads, clock),
                Upgrade(self._replica, clock, lambda: ledger.apply_version, versions.newest),
            ],
            chores=[retention.run, self._roster.watch],
        )  # fmt: skip

    @classmethod
    async def open(cls, config: Config, stack: contextlib.AsyncExitStack) -> Node:
        """Opens the folder, the ledger and the log; what it opens, `stack` closes."""
        folder = DataFolder.open(config.data, machine=machine_id(), entropy=os.urandom(ENTROPY))
        stack.callback(folder.close)
        if Generation.current(config.data).number or introduced(config.data).known:
            raise FolderError(
                f"{config.data} is the folder of a server of a cluster: start it with grampus"
                " server start"
            )
        path = config.data / "ledger" / "ledger.db"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        ledger = Ledger(path)
        stack.callback(ledger.close)
        replica = await SoloLog.open(config.data / "log", ledger, light=ledger.light)
        stack.push_async_callback(replica.close)
        reads = Reads(path)
        stack.callback(reads.close)
        readers = Database.open(path, readonly=True)
        stack.callback(readers.close)
        key_reads = KeyReads(path)
        stack.callback(key_reads.close)
        history = ledger.history or folder.identity.history
        keys = ClusterServer(replica, key_reads, SystemClock(), history, os.urandom)
        return cls(config, folder, ledger, replica, reads, readers, keys)

    async def run(
        self, group: asyncio.TaskGroup, ready: Callable[[str], None], detach: bool
    ) -> None:
        """Until cancelled, or until a part of it fails."""
        encryption = self._encryption()
        api = self._api(encryption)
        await api.start()
        listener = self._listener(group)
        await listener.start(LOOPBACK, self._config.listen.node_port)
        # What may fail comes before the parts: until the first wait nobody else runs.
        url, state = api.url, self._config.state
        ca = None if encryption is None else encryption.ca
        discovery.publish(state, url, self._token, os.getpid(), ca)
        parts = Parts(group)
        running = parts.start(
            self._replica.wait_failed(),
            self._intake.run(),
            self._office.run(),
            self._keys.run(),
            api.run(),
            *([] if encryption is None else [encryption.run()]),
        )
        worker = self._make_worker(listener.port)
        (working,) = parts.start(worker.run())
        registered = group.create_task(worker.registered.wait())
        failed = group.create_task(parts.failed.wait())
        try:
            await asyncio.wait((registered, failed), return_when=asyncio.FIRST_COMPLETED)
            if not failed.done():
                # What is there now stays: the collector need not look at it again.
                gc.collect()
                gc.freeze()
                ready(url)
            await parts.fail()
        finally:
            # Also after a cancel: what follows waits, but never without a bound.
            hear_cancel()
            discovery.withdraw(state, url, os.getpid())
            self._office.stop()
            if detach or parts.failure is not None:
                worker.leave()
            else:
                await worker.stop(self._config.kill_grace)
            working.cancel()
            self._wakes.close()
            self._keys.close()
            await api.stop()
            await listener.close()
            for task in (*running, registered, failed):
                task.cancel()

    def _encryption(self) -> Encryption | None:
        """None when nobody else can reach the API: then nothing of TLS is loaded."""
        config = self._config
        if is_own(config.listen.host):
            return None
        from grampus.api.encryption import Encryption

        return Encryption(config.data, self._cluster, config.name, config.listen.host, self._clock)

    def _api(self, encryption: Encryption | None) -> ApiServer:
        listen = self._config.listen
        status, logs, explainer, relay = self._status, self._logs, self._explainer, self._relay
        ports = Ports(
            propose=self._proposer.propose,
            reads=self._reads,
            blobs=BlobFiles(self._blobs),
            read_log=Logs(status, logs, relay),
            explain=Explain(status, explainer, relay),
            presence=Presence(status, relay),
            status=status,
            clock=self._clock,
            clock_doubt=ClockDoubt(lambda: True, self._clock, relay),
            entropy=os.urandom,
            cluster=self._cluster_face,
            keys=self._keys,
            keep_alive=self._keys.keep_alive,
            barrier=self._replica.read_barrier,
        )
        app = create_app(
            ports, self._wakes, token=self._token, listen=listen.host,
            token_file=str(self._token_file), cluster_id=self._cluster,
        )  # fmt: skip
        tls = None if encryption is None else encryption.context
        return ApiServer(app, listen.host, listen.port, tls)

    def _listener(self, group: asyncio.TaskGroup) -> Server[Message]:
        lanes = Lanes(self._roster, KeyDesk(self._keys, Alone()))
        return Server(
            Codec(Message), lanes, lanes.greet, group, opened=lanes.opened,
            hello_limit=HELLO_FRAME, hello_timeout=HELLO_TIMEOUT,
        )  # fmt: skip

    def _make_worker(self, port: int) -> Worker:
        config = self._config
        return Worker(
            config.data / "worker", name=config.name, slots=config.slots,
            addresses=[(LOOPBACK, port)], blobs=self._blobs,
            credential=self._credential, cluster=self._cluster, group=config.group,
            warm=config.warm, folder_id=self._folder_id,
        )  # fmt: skip

    def _admits(self, hello: Hello) -> bool:
        return hmac.compare_digest(hello.credential.encode(), self._credential.encode())


def secret_of(path: Path) -> str:
    """A secret of this folder; made once, 0600. A file without one is made anew."""
    with contextlib.suppress(FileNotFoundError):
        if token := path.read_text().strip():
            return token
    token = secrets.token_hex(TOKEN_BYTES)
    secret_file.write(path, token.encode() + b"\n")
    return token
