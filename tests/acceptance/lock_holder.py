"""A process that writes to a file while it holds a lock of the cluster, as a user's program would:
`python -m tests.acceptance.lock_holder FOLDER NAME TOKEN_FILE SERVERS FILE`.

Rule: right before each write it asks whether its session lives. A line of the file is the name and
the fencing token; a line of stdout is what became of it. A lost session is followed by a new one.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from grampus.clock import SystemClock
from grampus.cluster.client import ClusterClient
from grampus.cluster.desk import KEYS
from grampus.cluster.held_session import HeldSession
from grampus.consensus.folder import ENTROPY, WORKER_PARTS, DataFolder
from grampus.errors import GrampusError
from grampus.protocol import PROTOCOL_VERSION, Hello
from grampus.rpc.address import host_and_port
from grampus.worker.membership import Membership, enter

LOCK = "store"
#: Time to live of a session in ms, seconds between two writes and that the lock is waited for.
TTL, PACE, WAIT = 3_000, 0.05, 60.0


def hello(name: str, who: Membership) -> Hello:
    return Hello(PROTOCOL_VERSION, KEYS, "worker", name, who.cluster, who.credential)


async def hold(session: HeldSession, name: str, file: int) -> None:
    """Until the session is over."""
    print("session", session.session, flush=True)
    token = await session.lock(LOCK, WAIT)
    print("token", token, flush=True)
    while session.lives:
        os.write(file, f"{name} {token}\n".encode())
        await asyncio.sleep(PACE)
    print("over", session.session, flush=True)


async def main(path: Path, name: str, shown: str, servers: str, store: Path) -> None:
    addresses = [host_and_port(server) for server in servers.split(",")]
    file = os.open(store, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    place = DataFolder.open(path, machine="", entropy=os.urandom(ENTROPY), parts=WORKER_PARTS)
    with place as folder:
        who = await enter(folder, name, addresses, shown, os.urandom(32))
        async with asyncio.TaskGroup() as tasks:
            client = ClusterClient(
                addresses, lambda: hello(name, who), SystemClock(), os.urandom, tasks, who.tls
            )
            while True:
                try:
                    await hold(await client.open_session(name, TTL), name, file)
                except GrampusError as error:
                    print("error", error, flush=True)
                    await asyncio.sleep(PACE)


if __name__ == "__main__":
    folder, name, token, servers, store = sys.argv[1:]
    asyncio.run(main(Path(folder), name, Path(token).read_text().strip(), servers, Path(store)))
