"""What a folder says of its server by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from grampus.config import Config, Listen, load_config
from grampus.consensus.disk import Disk
from grampus.consensus.folder import ENTROPY, DataFolder
from grampus.consensus.introduction import introduce
from grampus.consensus.members import Members
from grampus.founding import found, raft_id
from grampus.model.member import Member
from grampus.server.arrival import as_before


def take(path: Path) -> DataFolder:
    return DataFolder.open(path, machine="m1", entropy=bytes(ENTROPY))


def me(folder: DataFolder) -> Member:
    return Member(raft_id(folder.identity.node), "s1", "127.0.0.1", 8480, 8481)


def settings(folder: DataFolder, **flags: str) -> Config:
    return load_config({"data": str(folder.path), **flags}, {"HOME": str(folder.path)})


def test_the_server_of_a_folder_keeps_its_name_and_address(tmp_path: Path) -> None:
    with take(tmp_path / "s1") as folder:
        asyncio.run(found(folder.path, me(folder), folder.identity.history))
        config = as_before(settings(folder), folder)
        assert (config.name, config.listen) == ("s1", Listen("127.0.0.1", 8480))


def test_what_is_said_counts_more(tmp_path: Path) -> None:
    with take(tmp_path / "s1") as folder:
        asyncio.run(found(folder.path, me(folder), folder.identity.history))
        said = settings(folder, name="other", listen="127.0.0.1:9000")
        assert as_before(said, folder) == said
        moved = as_before(settings(folder, listen="127.0.0.1:9000"), folder)
        assert (moved.name, moved.listen) == ("s1", Listen("127.0.0.1", 9000))


def test_who_was_introduced_and_has_no_ledger_yet_knows_itself_too(tmp_path: Path) -> None:
    with take(tmp_path / "s1") as folder:
        introduce(folder.path, Members(known=(me(folder),)), Disk())
        assert as_before(settings(folder), folder).name == "s1"


def test_an_empty_folder_knows_nothing(tmp_path: Path) -> None:
    with take(tmp_path / "s1") as folder:
        config = settings(folder)
        assert as_before(config, folder) == config
