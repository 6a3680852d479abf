"""Committed entries reach the machine in order, once, and those who wait are told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from grampus.consensus.applier import Applier, Committed
from grampus.consensus.members import Conf, MemberChange, Members, encode_change
from grampus.consensus.record import CHANGE_V2, NORMAL
from grampus.consensus.writer import Limits
from grampus.database import StorageFailed
from grampus.model.member import Member
from tests.looped import looped

A, B = Member(1, "a", "::1", 1, 2), Member(2, "b", "::1", 3, 4)


class Story:
    """Machine and listener in one: what happened, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.threads: list[str] = []
        self.applied_index = 0
        self.members = Members(conf=([1], [], [], [], False), known=(A,)).encode()
        self.durable: int | None = None
        self.answers = 1
        self.part: Callable[[], None] | None = None

    # the machine
    def apply(
        self, index: int, term: int, commands: Sequence[bytes]
    ) -> tuple[list[object], list[object]]:
        self.applied_index = index
        self.told.append(("apply", index, list(commands)))
        return list(commands) * self.answers, []

    def apply_members(self, index: int, term: int, members: bytes) -> None:
        self.applied_index, self.members = index, members
        self.told.append(("apply members", index))

    def checkpoint_part(self) -> Callable[[], None] | None:
        return self.part

    def checkpoint(self) -> int | None:
        self.told.append(("checkpoint", self.applied_index))
        return self.durable

    # the listener
    def change(self, kind: int, data: bytes) -> Conf:
        self.told.append(("raft", kind, data))
        return [2, 1], [], [], [], False

    def applied(self, index: int, term: int, results: list[object], events: list[object]) -> None:
        self.told.append(("applied", index, term, results))

    def members_changed(self, members: Members) -> None:
        self.told.append(("members", members.voters))

    def checkpointed(self, index: int) -> None:
        self.told.append(("durable", index))

    async def thread(self, call: Callable[..., Any], *args: Any) -> Any:
        self.threads.append(call.__name__)
        return call(*args)


def entry(index: int, *commands: bytes, term: int = 1) -> Committed:
    return index, term, NORMAL, msgspec.msgpack.encode(list(commands)) if commands else b"", b""


async def turns_until(reached: Callable[[], bool], most: int = 10_000) -> None:
    for _ in range(most):
        if reached():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come to that")


async def played(story: Story, entries: list[Committed], **kwargs: Any) -> Applier:
    """Until all are applied, and a checkpoint more if one is due."""
    light = kwargs.pop("light", None)
    applier = Applier(story, story, Limits(checkpoint_idle=60.0, **kwargs), light, story.thread)
    async with asyncio.TaskGroup() as group:
        run = group.create_task(applier.run())
        applier.put(entries)
        while applier.backlog or applier._queue or story.applied_index < entries[-1][0]:
            await asyncio.sleep(0)
            if run.done():
                break
        await asyncio.sleep(0)
        run.cancel()
    return applier


@looped
async def test_entries_are_applied_in_order_and_told_in_order() -> None:
    story = Story()
    await played(story, [entry(1), entry(2, b"a", b"b", term=2), entry(3, b"c", term=2)])
    assert story.told == [
        ("apply", 1, []),
        ("applied", 1, 1, []),
        ("apply", 2, [b"a", b"b"]),
        ("applied", 2, 2, [b"a", b"b"]),
        ("apply", 3, [b"c"]),
        ("applied", 3, 2, [b"c"]),
    ]


@looped
async def test_a_change_of_members_is_rafts_the_machines_and_then_everybodys() -> None:
    story = Story()
    change = 1, 1, CHANGE_V2, b"change", encode_change(MemberChange((B,)))
    await played(story, [change])
    assert story.told == [
        ("raft", CHANGE_V2, b"change"),
        ("apply members", 1),
        ("members", (1, 2)),
        ("applied", 1, 1, []),
    ]
    assert Members.decode(story.members).known == (A, B)


@looped
async def test_what_is_light_is_applied_on_the_loop_except_the_first_after_a_checkpoint() -> None:
    story = Story()
    entries = [entry(1, b"l"), entry(2, b"l"), entry(3, b"heavy"), entry(4, b"l"), entry(5, b"l")]
    await played(story, entries, light=lambda commands: commands == [b"l"], checkpoint_entries=4)
    assert story.threads == ["apply", "apply", "checkpoint", "apply"]


@looped
async def test_a_checkpoint_comes_after_so_many_entries_and_only_a_durable_one_is_told() -> None:
    story = Story()
    await played(story, [entry(1), entry(2)], checkpoint_entries=2)
    assert ("checkpoint", 2) in story.told
    assert not any(told[0] == "durable" for told in story.told)
    story = Story()
    story.durable = 1
    await played(story, [entry(1), entry(2)], checkpoint_entries=2)
    assert story.told[-1] == ("durable", 1)


@looped
async def test_a_machine_that_does_not_answer_each_command_ends_it() -> None:
    story = Story()
    story.answers = 2
    with pytest.raises(ExceptionGroup) as raised:
        await played(story, [entry(1, b"a")])
    assert raised.group_contains(RuntimeError, match="2 results")
    assert not any(told[0] == "applied" for told in story.told)


@looped
async def test_what_is_light_is_applied_before_put_returns_once_nothing_else_is_to_do() -> None:
    story = Story()
    applier = Applier(story, story, Limits(checkpoint_idle=60.0), lambda _: True, story.thread)
    async with asyncio.TaskGroup() as group:
        run = group.create_task(applier.run())
        applier.put([entry(1)])
        assert story.told == [], "nothing was applied yet: it may take long"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        applier.put([entry(2, b"a"), entry(3)])
        assert story.applied_index == 3
        assert applier.backlog == 0
        applier.put([(4, 1, CHANGE_V2, b"change", encode_change(MemberChange((B,)))), entry(5)])
        assert story.applied_index == 3, "what is behind it waits, too"
        await turns_until(lambda: story.applied_index == 5)
        run.cancel()
    assert [told[1] for told in story.told if told[0] == "applied"] == [1, 2, 3, 4, 5]


@looped
async def test_what_cannot_be_applied_is_the_failure_of_whoever_put_it() -> None:
    story = Story()
    applier = Applier(story, story, Limits(checkpoint_idle=60.0), lambda _: True, story.thread)
    async with asyncio.TaskGroup() as group:
        run = group.create_task(applier.run())
        applier.put([entry(1)])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        story.answers = 2
        with pytest.raises(RuntimeError, match="2 results"):
            applier.put([entry(2, b"a")])
        run.cancel()


@looped
async def test_a_pause_is_used_for_a_checkpoint_and_again_while_readers_are_in_the_way() -> None:
    story = Story()
    applier = Applier(story, story, Limits(checkpoint_idle=0.0), lambda _: True, story.thread)

    async with asyncio.TaskGroup() as group:
        run = group.create_task(applier.run())
        applier.put([entry(1)])
        await turns_until(lambda: story.threads.count("checkpoint") == 2)
        story.durable = 1
        await turns_until(lambda: ("durable", 1) in story.told)
        done = story.threads.count("checkpoint")
        with pytest.raises(AssertionError):
            await turns_until(lambda: story.threads.count("checkpoint") > done, most=50)
        applier.put([entry(2)])
        await turns_until(lambda: story.threads.count("checkpoint") > done)
        run.cancel()


@looped
async def test_most_of_a_checkpoint_goes_on_while_entries_are_applied() -> None:
    story, go_on = Story(), threading.Event()

    def part() -> None:
        assert go_on.wait(10)
        story.told.append(("part",))

    story.part = part
    limits = Limits(checkpoint_idle=60.0, checkpoint_entries=2)
    applier = Applier(story, story, limits, None, story.thread)
    async with asyncio.TaskGroup() as group:
        run = group.create_task(applier.run())
        applier.put([entry(n, b"x") for n in range(1, 8)])
        await turns_until(lambda: story.applied_index == 7)
        assert ("checkpoint", 7) not in story.told
        go_on.set()
        await turns_until(lambda: ("checkpoint", 7) in story.told, most=10_000_000)
        run.cancel()
    kinds = [each[0] for each in story.told if each[0] in ("part", "checkpoint")]
    assert kinds == ["part", "checkpoint"], "one of each, in this order"


@looped
async def test_who_closes_waits_for_what_is_under_way() -> None:
    story, go_on = Story(), threading.Event()
    story.part = lambda: story.told.append(("part", go_on.wait(10)))
    limits = Limits(checkpoint_idle=60.0, checkpoint_entries=1)
    applier = Applier(story, story, limits, None, story.thread)
    async with asyncio.TaskGroup() as group:
        run = group.create_task(applier.run())
        applier.put([entry(1, b"x")])
        await turns_until(lambda: story.applied_index == 1)
        run.cancel()
    settled = asyncio.ensure_future(applier.settle())
    await asyncio.sleep(0)
    assert not settled.done()
    go_on.set()
    await settled
    assert story.told[-1] == ("part", True)


@looped
async def test_what_the_first_part_of_a_checkpoint_raises_comes_out() -> None:
    story = Story()

    def part() -> None:
        raise StorageFailed("the disk is full")

    story.part = part
    limits = Limits(checkpoint_idle=60.0, checkpoint_entries=1)
    applier = Applier(story, story, limits, None, story.thread)
    applier.put([entry(1, b"x")])
    with pytest.raises(StorageFailed, match="the disk is full"):
        await asyncio.wait_for(applier.run(), 10)
