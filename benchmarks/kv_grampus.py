"""Grampus as a store of `kv_port`: servers by its own commands, and its own client."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from benchmarks.kv_port import Cluster, Store


async def open(endpoints: list[str], connections: int) -> Store:
    raise NotImplementedError


def missing() -> str:
    try:
        there = importlib.util.find_spec("grampus.cluster.client")
    except ModuleNotFoundError:
        there = None
    return "" if there else "this version has no client of the metadata center"


def found(folder: Path, servers: int) -> Cluster:
    raise NotImplementedError
