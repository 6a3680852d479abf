"""The API in front of one of three servers, and the command line that asks it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from cli_node import NodeStatus
from three_servers import OneServer

from grampus.api.app import create_app
from grampus.api.ports import Ports
from grampus.api.server import ApiServer
from grampus.api.wakes import Wakes
from grampus.clock import SystemClock
from grampus.master.timekeeper import Timekeeper

TOKEN = "correct-horse"
#: Seconds that a command may take.
COMMAND = 30.0


@asynccontextmanager
async def front(server: OneServer, cluster: str = "c1") -> AsyncIterator[str]:
    """The API of that server: its URL."""
    ports = Ports(
        **dict.fromkeys(
            ("propose", "reads", "blobs", "read_log", "explain", "presence", "clock_doubt",
             "entropy", "cluster"), cast(Any, None)
        ),
        status=NodeStatus(), clock=Timekeeper(SystemClock()), keys=server.keys,
        keep_alive=server.keys.keep_alive, barrier=server.replica.read_barrier,
        unheard=lambda: server.replica.unheard,
    )  # fmt: skip
    app = create_app(ports, Wakes(), token=TOKEN, listen="127.0.0.1", cluster_id=cluster)
    api = ApiServer(app, "127.0.0.1", 0)
    await api.start()
    running = asyncio.ensure_future(api.run())
    try:
        yield api.url
    finally:
        api._server.should_exit = True
        await running


async def by_the_command(url: str, folder: Path, arguments: tuple[str, ...]) -> tuple[int, str]:
    """Its exit code, and what it says on stderr."""
    (folder / "wrong-token").write_text("wrong")
    env = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "GRAMPUS_STATE": str(folder / "state"),
        "GRAMPUS_SERVER": url, "PYTHONPATH": ":".join(sys.path),
    }  # fmt: skip
    if "--token-file" not in arguments:
        env["GRAMPUS_TOKEN"] = TOKEN
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "grampus.cli.main", *arguments, env=env, cwd=folder,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(COMMAND):
        _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()
