"""What a worker says of itself beside its attempts."""

from __future__ import annotations

import pytest

from grampus.worker.condition import Condition


def test_what_cannot_be_killed_is_reported_until_it_is_over() -> None:
    condition = Condition(lambda: "")
    condition.sample()
    assert condition.report(7).stuck == ()
    condition.is_stuck(12)
    condition.is_stuck(3)
    condition.is_stuck(12)
    assert condition.sample()
    assert condition.report(7).stuck == (3, 12)
    assert not condition.sample()
    condition.is_over(12)
    condition.is_over(99)
    assert condition.sample()
    assert condition.report(7).stuck == (3,)
    # A warden that was taken over says it again, if it is still so.
    condition.has_new_word()
    assert condition.sample()
    assert condition.report(7).stuck == ()


def test_trouble_is_an_alarm_once(caplog: pytest.LogCaptureFixture) -> None:
    condition = Condition(lambda: "")
    condition.warden = "no room"
    assert condition.sample()
    assert not condition.sample()
    assert condition.report(7).trouble == "no room"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
