"""A node whose ledger is as old as a month: nothing is fired before its clock is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grampus.clock import SystemClock
from tests.acceptance.node import Ground, until

BEAT = """
workflow: beat
schedule: {every: 1s, overlap: allow}
tasks: {note: {shell: "true"}}
"""
MONTH = 31 * 86_400_000


@pytest.mark.skipif(SystemClock().synchronised(), reason="the kernel says that the clock is right")
def test_schedules_are_held_back_until_somebody_says_that_the_clock_is_right(
    tmp_path: Path,
) -> None:
    ground = Ground(tmp_path)
    with ground.up(), ground.client() as client:
        client.apply(ground.write("beat.yaml", BEAT))
        until(lambda: list(client.ticks("beat")))
    # As if all that had been a month ago, before the machine was booted.
    file = ground.data / "clock.json"
    known = json.loads(file.read_bytes())
    file.write_text(json.dumps(known | {"boot": "another", "now": known["now"] - MONTH}))

    with ground.up() as node, ground.client() as client:
        assert "ALARM: the clock is 31d ahead of the newest entry of the ledger" in node.said()
        before = len(list(client.ticks("beat")))
        [schedule] = client.schedules()
        assert schedule.held.startswith("the clock is 31d ahead")
        assert "HELD" in ground.cli("schedule", "list").stdout
        [alarm] = client.alarms()
        assert alarm.startswith("schedules are held back: the clock is 31d ahead")
        listen = node.url.removeprefix("http://")
        doctor = ground.cli("doctor", "--listen", listen)
        assert doctor.returncode == 1
        assert "held back: the clock is 31d ahead" in doctor.stdout
        assert len(list(client.ticks("beat"))) == before
        said = ground.cli("schedule", "trust-clock")
        assert (said.returncode, "schedules fire again" in said.stderr) == (0, True)
        until(lambda: len(list(client.ticks("beat"))) > before + 1)
        assert client.alarms() == []
        made = [tick.tick for tick in client.ticks("beat")]
        assert len(set(made)) == len(made)
        client.pause_schedule("beat")
