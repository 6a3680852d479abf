"""A process to be killed: proposes without end, and prints what was acknowledged."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from grampus.consensus.folder import DataFolder
from grampus.consensus.solo import SoloLog
from grampus.consensus.writer import Limits
from grampus.database import Database


class Table:
    """Commands as rows; `applied` in the same transaction."""

    def __init__(self, path: Path) -> None:
        self.db = Database.open(path)
        self.db.script(
            "CREATE TABLE IF NOT EXISTS done (command BLOB NOT NULL, entry INTEGER NOT NULL);"
            "CREATE TABLE IF NOT EXISTS meta (applied INTEGER NOT NULL);"
            "INSERT INTO meta SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM meta)"
        )
        self.applied_index: int = self.db.value("SELECT applied FROM meta")

    def apply(
        self, index: int, term: int, commands: Sequence[bytes]
    ) -> tuple[list[object], list[object]]:
        with self.db.transaction():
            self.db.executemany("INSERT INTO done VALUES (?, ?)", [(c, index) for c in commands])
            self.db.execute("UPDATE meta SET applied = ?", (index,))
        self.applied_index = index
        return [index] * len(commands), []

    def checkpoint_part(self) -> None:
        return None

    def checkpoint(self) -> int | None:
        return self.applied_index if self.db.checkpoint() else None


async def main(path: Path) -> None:
    with DataFolder.open(path, machine="m", entropy=os.urandom(30)) as folder:
        solo = await SoloLog.open(
            folder.log, Table(folder.ledger / "x.db"), limits=Limits(checkpoint_entries=40)
        )

        async def proposer(name: int) -> None:
            for i in range(1 << 30):
                command = b"%d-%d-%d" % (solo.term, name, i)
                await solo.propose([command.ljust(400, b".")])
                os.write(1, command + b"\n")

        async with asyncio.TaskGroup() as group:
            for name in range(4):
                group.create_task(proposer(name))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
