"""Schedules over HTTP and on the command line: what is planned, what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api_node import Node, play, problem_of, shell
from cli_node import Node as CliNode
from cli_node import published

from grampus.cli import main as cli
from grampus.ids import run_id_of_key
from grampus.model.workflow import Schedule, Shell, Task, Workflow
from grampus.runs.commands import (
    ApplyWorkflow,
    FireTick,
    PlanSchedule,
    SkipTicks,
    TakeOffice,
    pack_definition,
)

#: 2026-11-20 in Paris, where a day begins at 23:00 in UTC.
TICK = 1_795_129_200_000
DAY = 86_400_000
SIX = {"cron": "0 0 * * *", "tz": "Europe/Paris"}


def commands(epoch: int) -> list[PlanSchedule | SkipTicks | FireTick]:
    """Three ticks were missed, one was fired, the next is planned."""
    run = run_id_of_key(f"schedule:nightly:{TICK}")
    first = TICK - 3 * DAY
    return [
        PlanSchedule(1, epoch, "nightly", 1, first),
        SkipTicks(TICK, epoch, "nightly", 1, first, TICK - DAY, 3, TICK, "missed"),
        FireTick(TICK + 250, epoch, "nightly", 1, TICK, TICK + DAY, run, b"{}", ""),
    ]


def test_a_schedule_shows_its_plan_and_its_past(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("nightly", schedule=SIX))
        await node.apply(shell("plain"))
        await node.staff()
        base = "/api/v1/schedules"
        (shown,) = (await node.client.get(base)).json()["items"]
        assert (shown["name"], shown["next"], shown["last"]) == ("nightly", None, None)
        answers = await node.proposer.propose(*commands(node.epoch))
        assert answers == ["planned", "missed", "run"]
        shown = (await node.client.get(f"{base}/nightly")).json()
        assert shown["next"] == "2026-11-20T23:00:00.000Z"
        assert shown["next_local"] == "2026-11-21T00:00:00+01:00"
        assert shown["schedule"] == SIX
        assert shown["last"]["outcome"] == "run"
        page = (await node.client.get(f"{base}/nightly/ticks?limit=1")).json()
        assert page["items"] == [shown["last"]]
        found = (await node.client.get(f"/api/v1/runs/{shown['last']['run']}")).json()
        assert found["tick"] == shown["last"]["tick"] == "2026-11-19T23:00:00.000Z"
        page = (
            await node.client.get(f"{base}/nightly/ticks", params={"cursor": page["next"]})
        ).json()
        (missed,) = page["items"]
        assert (missed["outcome"], missed["count"], page["next"]) == ("missed", 3, None)
        assert missed["last"] == "2026-11-18T23:00:00.000Z"

    play(tmp_path, scenario)


def test_what_is_to_come_is_foretold_from_now_on(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("nightly", schedule=SIX))
        await node.apply(shell("over", schedule={"cron": "0 0 * * *", "end": "2026-01-01"}))
        answer = await node.client.get("/api/v1/schedules/nightly/next?count=40")
        items = answer.json()["items"]
        assert len(items) == 40
        assert len({item["tick"] for item in items}) == 40
        assert all(item["local"][11:19] == "00:00:00" for item in items)
        assert (await node.client.get("/api/v1/schedules/over/next")).json() == {"items": []}
        problem_of(await node.client.get("/api/v1/schedules/none/next"), 404, "not-found")
        problem_of(
            await node.client.get("/api/v1/schedules/over/next?count=101"), 422, "invalid-input"
        )

    play(tmp_path, scenario)


def test_a_schedule_is_paused_and_resumed(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("nightly", schedule=SIX))
        for what, paused in (("pause", True), ("resume", False)):
            for _ in range(2):
                answer = await node.client.post(f"/api/v1/schedules/nightly/{what}")
                assert answer.json() == {"name": "nightly", "paused": paused}
            shown = (await node.client.get("/api/v1/schedules/nightly")).json()
            assert (shown["paused"], shown["paused_by"]) == (paused, "user" if paused else "")
        problem_of(await node.client.post("/api/v1/schedules/none/pause"), 404, "not-found")

    play(tmp_path, scenario)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliNode]:
    for name in ("GRAMPUS_SERVER", "GRAMPUS_TOKEN", "GRAMPUS_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GRAMPUS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "etc"))
    (tmp_path / "node").mkdir()
    with published(tmp_path / "node", tmp_path / "state") as node:
        schedule = Schedule(cron="0 0 * * *", tz="Europe/Paris")
        workflow = Workflow("nightly", (Task("a", Shell("true")),), schedule=schedule)
        node.command(ApplyWorkflow(1, "nightly", pack_definition(workflow.content())))
        yield node


@pytest.fixture
def grampus(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leave:
            cli.main(["schedule", *arguments])
        out, err = capsys.readouterr()
        return int(leave.value.code or 0), out, err

    return run


def test_the_command_line_tells_the_time_of_the_zone(
    node: CliNode, grampus: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = grampus("ticks", "nightly")
    assert (code, out) == (0, "")
    assert "no tick of nightly has come yet" in err
    epoch = node.command(TakeOffice(1, "n1", 1))
    assert isinstance(epoch, int)
    for command in commands(epoch):
        node.command(command)
    _, out, _ = grampus("list")
    (line,) = out.splitlines()[1:]
    assert (
        line.split()
        == (
            "nightly ACTIVE 2026-11-21 00:00:00 +01:00 run 2026-11-20 00:00:00 +01:00"
            " 0 0 * * * Europe/Paris"
        ).split()
    )
    _, out, _ = grampus("ticks", "nightly")
    fired, missed = out.splitlines()[1:]
    assert fired.startswith("2026-11-20 00:00:00 +01:00  run ")
    assert fired.endswith("0.2s")
    assert "missed" in missed
    assert missed.endswith("3 ticks: too late, and missed is latest")
    _, out, _ = grampus("ticks", "nightly", "--limit", "1", "-o", "json")
    (tick,) = json.loads(out)
    assert tick["local"] == "2026-11-20T00:00:00+01:00"
    _, out, _ = grampus("next", "nightly", "--count", "3")
    assert len(out.splitlines()) == 4
    code, out, err = grampus("pause", "nightly")
    assert (code, out) == (0, "")
    assert "grampus schedule resume nightly" in err
    assert "PAUSED" in grampus("list")[1]
    assert "these ticks pass without a run" in grampus("next", "nightly")[2]
    assert grampus("resume", "nightly")[0] == 0
    assert json.loads(grampus("list", "-o", "json")[1])[0]["paused"] is False
    assert grampus("next", "none")[0] == 6
