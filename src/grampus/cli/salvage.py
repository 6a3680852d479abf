"""What is done to the folders of stopped servers: `grampus cluster recover`, and `restore`.

Rule: whatever can be refused is refused before a folder is made or changed.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from grampus.backup import LEDGER, look, unpack
from grampus.blobs import Blobs
from grampus.cli.output import note
from grampus.clock import SystemClock
from grampus.config import Config, load_config
from grampus.consensus.folder import ENTROPY, DataFolder
from grampus.errors import Refused, UsageError
from grampus.founding import raft_id, recover, refuse_ledger, restore, standing, survey
from grampus.model.member import Member
from grampus.rpc.address import is_everywhere
from grampus.server.arrival import prepare_first
from grampus.server.roll_call import who_answers
from grampus.worker.identity import machine_id

#: What each data folder has; a path without it is none, or a mistake.
_IDENTITY = "node.toml"


class Survey(Struct, frozen=True):
    """What `recover` would keep of a folder."""

    folder: str
    #: Names of all servers that its cluster had.
    servers: list[str]
    #: Its last entry, and the term of that: see `choose` in the text.
    last: int
    term: int
    #: Up to there entries are known to be committed.
    committed: int
    #: How many behind that are not: clients may have been told that their outcome is unknown.
    uncertain: int


def survey_folder(data: str | None) -> Survey:
    """`grampus cluster recover --look`. Raises FolderError, Refused."""
    config = load_config({"data": data})
    with _stopped(config) as folder:
        found = survey(folder.path)
    names = sorted({member.name for member in found.members.known})
    return Survey(str(config.data), names, found.last, found.term, found.committed, found.uncertain)


def told(found: Survey) -> list[str]:
    """For people."""
    kept = f"all entries up to {found.last:,}"
    if found.uncertain:
        last = "the last one is" if found.uncertain == 1 else f"the last {found.uncertain:,} are"
        kept += (
            f"; {last} not known to be committed: clients may have been told that the outcome is"
            " unknown"
        )
    return [
        f"folder  {found.folder}, of one of the servers {', '.join(found.servers)}",
        f"ends    with entry {found.last:,} of term {found.term}",
        f"keeps   {kept}",
        f"loses   whatever the others have acknowledged beyond entry {found.last:,}",
        "choose  of all folders that can be read, one whose last entry has the highest term,",
        "        and of those the highest number",
    ]


def recover_folder(data: str | None) -> None:
    """`grampus cluster recover`. Raises FolderError, Refused.

    It is refused while another server of its cluster answers: one that lives would end once it met
    this one."""
    config = load_config({"data": data})
    with _stopped(config) as folder:
        there = standing(folder.path)
        me = None if there is None else there.members.find(raft_id(folder.identity.node))
        if there is None or me is None:
            raise Refused(f"{folder.path} is the folder of no member of a cluster")
        if others := asyncio.run(who_answers(folder, me, there.members)):
            names = ", ".join(f"{each.name} at {each.address}" for each in others)
            raise Refused(
                f"not everybody else is gone: {names}; with a majority nothing has to be recovered"
                " (grampus cluster status), and without one stop those that answer first, for good"
            )
        made = recover(folder.path, me, _new_history())
        folder.adopt(folder.identity.cluster, made.history)
    note(
        f"{config.data} is the only member of history {made.history} now. Start it: grampus server"
        f" start --data {config.data} --name {me.name} --listen {me.address}. The servers of the"
        " old history are refused: empty their folders, and let them join anew"
    )


def restore_folder(file: Path, data: str | None, name: str, listen: str) -> None:
    """`grampus cluster restore`, into an empty folder. Raises UsageError, Refused, FolderError."""
    config = load_config({"data": data, "name": name, "listen": listen})
    check_snapshot(file)
    at = config.listen
    if is_everywhere(at.host):
        raise UsageError(
            f"a server tells the others where it listens, and {at.host} is every address: say the"
            " one at which they reach it"
        )
    with _open(config) as folder:
        me = Member(raft_id(folder.identity.node), name, at.host, at.port, at.node_port)
        refuse_ledger(folder.path)
        prepare_first(folder, me, SystemClock().now())
        aside = folder.path / "restoring"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        found = unpack(file, aside / LEDGER, Blobs(folder.blobs))
        made = restore(folder.path, aside / LEDGER, me, _new_history())
        shutil.rmtree(aside)
        folder.adopt(folder.identity.cluster, made.history)
    if found.missing:
        note(f"{len(found.missing)} blobs are missing in {file}, the first is {found.missing[0]}")
    note(
        f"{config.data} has the state of {file}. Start it: grampus server start --data"
        f" {config.data} --name {name} --listen {listen}"
    )


def check_snapshot(file: Path) -> None:
    """Raises UsageError, or Refused when it is no snapshot."""
    if not file.is_file():
        raise UsageError(f"there is no file {file}")
    look(file)


@contextmanager
def _stopped(config: Config) -> Iterator[DataFolder]:
    """The folder of a server that does not run. A name with a mistake in it makes no folder."""
    if not (config.data / _IDENTITY).is_file():
        raise UsageError(
            f"{config.data} is no data folder: say --data DIR, the folder of a stopped server"
        )
    with _open(config) as folder:
        yield folder


def _open(config: Config) -> DataFolder:
    return DataFolder.open(config.data, machine=machine_id(), entropy=os.urandom(ENTROPY))


def _new_history() -> str:
    return base64.b32encode(os.urandom(10)).decode().lower()
