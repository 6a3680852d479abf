"""Messages of reports fit into their frames."""

from __future__ import annotations

import msgspec

from grampus.model.run import INLINE_LIMIT, AttemptState, Value
from grampus.protocol import CONTROL_FRAME, Report
from grampus.worker.core.outbox import BATCH, bounded, messages


def report(n: int, error: str = "", data: bytes | None = None) -> Report:
    output = None if data is None else Value("json", data, None, len(data))
    return Report(7, n, AttemptState.FAILED, 2**42, -9, bounded(error), ("E" * 200,) * 32, output)


def test_small_reports_go_together_and_large_ones_apart() -> None:
    small = [Report(7, n, AttemptState.SUCCEEDED, 1) for n in range(1_200)]
    assert [len(message.reports) for message in messages(small)] == [BATCH, BATCH, 200]
    large = [report(n, "ä" * 100_000, b"x" * INLINE_LIMIT) for n in range(20)]
    batches = messages(large)
    assert sum(len(message.reports) for message in batches) == 20
    assert len(batches) < 20
    for message in batches:
        assert len(msgspec.msgpack.encode(message)) < CONTROL_FRAME - 500
    assert messages([]) == []


def test_a_long_error_keeps_its_beginning_and_its_end() -> None:
    text = bounded("first " + "x" * 10_000 + " last")
    assert len(text) <= 4_000
    assert text.startswith("first ")
    assert text.endswith(" last")
    assert bounded("short") == "short"
