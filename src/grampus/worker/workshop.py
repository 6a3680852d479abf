"""A worker by itself: the process of `grampus worker start`, with its warden beside it.

Order of the start: the folder is ours, it belongs to a cluster, then the worker; `ready` is said
once a server knows it. It has no API, and needs no server to look after what runs already. The end
is that of a node: attempts get their grace, their last reports are sent, then everything closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import Callable, Sequence

from grampus.blobs import Blobs
from grampus.clock import SystemClock
from grampus.cluster.core.histories import Histories
from grampus.cluster.desk import KEYS
from grampus.cluster.monitor import keep_present, worker_key
from grampus.config import Config
from grampus.consensus.folder import ENTROPY, WORKER_PARTS, DataFolder
from grampus.ending import explained
from grampus.errors import GrampusError
from grampus.patience import hear_cancel
from grampus.protocol import PROTOCOL_VERSION, Hello
from grampus.rpc.subject import WORKER
from grampus.worker.driver import Worker
from grampus.worker.histories import histories_of
from grampus.worker.identity import machine_id
from grampus.worker.larder import Larder
from grampus.worker.membership import Membership, enter
from grampus.worker.servers import Address


async def run_worker(
    config: Config,
    servers: Sequence[Address],
    shown: str,
    ready: Callable[[], None],
    *,
    detach: bool = False,
) -> None:
    """Until it is cancelled; then it ends in order and raises CancelledError.

    `shown` is what the folder needs to enter a cluster, "" when it has. With `detach`, or when it
    fails, attempts go on and are taken over at the next start. Raises FolderError, Refused or
    another GrampusError when it cannot start or go on."""
    async with contextlib.AsyncExitStack() as stack:
        folder = DataFolder.open(
            config.data, machine=machine_id(), entropy=os.urandom(ENTROPY), parts=WORKER_PARTS
        )
        stack.callback(folder.close)
        mine = await enter(folder, config.name, servers, shown, os.urandom(32))
        blobs, histories = Blobs(folder.blobs), histories_of(folder.path)
        worker = Worker(
            folder.worker, name=config.name, slots=config.slots, addresses=servers,
            blobs=blobs, credential=mine.credential, cluster=mine.cluster,
            group=config.group, warm=config.warm, folder_id=folder.identity.node, tls=mine.tls,
            leased=True, histories=histories,
        )  # fmt: skip
        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(_present(config, servers, mine, histories)),
                    group.create_task(Larder(blobs, SystemClock()).run()),
                ]
                try:
                    await _work(worker, group, ready, config.kill_grace, detach)
                finally:
                    for task in beside:
                        task.cancel()
        except* (GrampusError, OSError) as errors:
            raise explained(errors) from errors


async def _work(
    worker: Worker,
    group: asyncio.TaskGroup,
    ready: Callable[[], None],
    grace: int,
    detach: bool,
) -> None:
    working = group.create_task(worker.run())
    registered = group.create_task(worker.registered.wait())
    try:
        await asyncio.wait((working, registered), return_when=asyncio.FIRST_COMPLETED)
        if registered.done():
            # What is there now stays: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            ready()
        await asyncio.wait((working,))
    finally:
        # Also after a cancel: what follows waits, but never without a bound.
        hear_cancel()
        registered.cancel()
        if detach or working.done():
            worker.leave()
        else:
            await worker.stop(grace)


async def _present(
    config: Config, servers: Sequence[Address], mine: Membership, histories: Histories
) -> None:
    """Is listed among the workers."""
    hello = Hello(PROTOCOL_VERSION, KEYS, WORKER, config.name, mine.cluster, mine.credential)
    about = {
        "name": config.name, "host": socket.gethostname(), "pid": os.getpid(),
        "group": config.group, "slots": config.slots,
    }  # fmt: skip
    await keep_present(
        worker_key(config.group, config.name), about, servers, lambda: hello, SystemClock(),
        os.urandom, mine.tls, histories=histories,
    )  # fmt: skip
