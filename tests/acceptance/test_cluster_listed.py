"""What the keys under /servers/ tell of the servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grampus.sdk.client import Client
from tests.acceptance.cluster import Site, site
from tests.acceptance.node import until

pytestmark = pytest.mark.raft


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        yield made


def listed(client: Client) -> list[dict[str, Any]]:
    return [json.loads(key.value) for key in client.kv.range("/servers/")]


def leads(client: Client) -> str:
    leading = [each for each in listed(client) if each.get("leads")]
    return max(leading, key=lambda each: each["leads"], default={"name": ""})["name"]


def test_the_keys_tell_who_leads_and_how_large_each_machine_is(ground: Site) -> None:
    ground.grow()
    first = ground.leader()
    second = ground.others(first)[0]
    with ground.client() as client:
        until(lambda: len(listed(client)) == 3 and leads(client) == first, 15)
        for each in listed(client):
            assert 0 < each["memory"] < each["total_memory"]
            assert each["cpus"] > 0
        client.change_member(second, "transfer")
        until(lambda: leads(client) == second, 15)
