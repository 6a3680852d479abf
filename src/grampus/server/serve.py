"""The process of `grampus server start`: one server of a cluster, for as long as it runs.

Rule: the folder is ours and belongs to a cluster before anything in it is opened. When a snapshot
was laid down, everything but the folder's lock is closed and opened anew, by the same way as at
every start (`server_node`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sys
from collections.abc import Callable
from functools import partial

from grampus import descriptors, secret_file
from grampus.api.encryption import Encryption
from grampus.clock import SystemClock
from grampus.config import Config
from grampus.consensus.disk import Disk
from grampus.consensus.members import NoMember
from grampus.consensus.snapshots import Installed
from grampus.consensus.trail import Trail
from grampus.consensus.writer import SWITCH_INTERVAL
from grampus.ending import explained
from grampus.errors import GrampusError
from grampus.server.arrival import Plan, arrive, as_before, open_folder
from grampus.server.manners import what_to_do
from grampus.server.server_node import ServerNode

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
