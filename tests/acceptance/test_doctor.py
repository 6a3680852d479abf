"""What people and probes can ask of a node that runs: how it holds attempts together."""

from __future__ import annotations

import json
from pathlib import Path

from tests.acceptance.node import Ground


def test_the_containment_that_a_node_has_taken_can_be_asked_for(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    with ground.up() as node, ground.client() as client:
        [worker] = client.workers()
        assert worker.containment in ("pid-namespace", "cgroup", "subreaper")
        assert worker.trouble == ""
        assert f" {worker.containment} " in ground.cli("worker", "list").stdout
        listen = node.url.removeprefix("http://")
        answer = ground.cli("doctor", "--listen", listen, "-o", "json").stdout
        [line] = [each for each in json.loads(answer) if each["name"] == "node"]
        assert line["found"] == (
            f"runs at {node.url}; attempts are held together by {worker.containment}"
        )
    found = ground.cli("doctor", "--listen", listen, "-o", "json").stdout
    [line] = [each for each in json.loads(found) if each["name"] == "node"]
    assert line["found"].startswith("none of this user at ")
