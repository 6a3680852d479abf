"""What is printed: columns, durations, and text that must not move the cursor."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from grampus.cli.answers import story_text
from grampus.cli.logs import _Lines
from grampus.cli.output import clean, cut, span, table
from grampus.sdk.answers import LogPiece, StoryLine


def test_columns_are_as_wide_as_what_is_in_them(capsys: pytest.CaptureFixture[str]) -> None:
    table(("A", "LONG"), [("xyz", "1"), ("日本", "2")])
    assert capsys.readouterr().out == "A     LONG\nxyz   1\n日本  2\n"


def test_in_a_pipe_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    table(("A",), [("x" * 500,)])
    assert "x" * 500 in capsys.readouterr().out


def test_a_cell_stays_on_its_line_and_cannot_draw(capsys: pytest.CaptureFixture[str]) -> None:
    table(("A", "B"), [("a\nb", "\x1b[2J\x07\u202e")])
    assert capsys.readouterr().out == "A    B\na b  \\x1b[2J\\x07\\u202e\n"


def test_text_is_cut_by_the_cells_it_takes() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdef", 4) == "abc…"
    assert cut("日本語", 4) == "日…"


def test_clean_keeps_what_can_be_printed() -> None:
    assert clean("déjà 日本 ✓") == "déjà 日本 ✓"


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, ""),
        (-5, "0.0s"),
        (440, "0.4s"),
        (9_949, "9.9s"),
        (9_960, "10s"),
        (59_400, "59s"),
        (59_600, "1m00s"),
        (3_599_700, "1h00m"),
        (90_000, "1m30s"),
        (7_620_000, "2h07m"),
        (356_400_000, "4d03h"),
    ],
)
def test_a_duration_is_short(ms: int | None, text: str) -> None:
    assert span(ms) == text


def test_on_a_narrow_terminal_the_first_and_the_last_column_are_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    table(("NAME", "STATE", "REASON"), [("n" * 64, "FAILED", "r" * 64)])
    head, row = capsys.readouterr().out.splitlines()
    assert len(head) <= 40
    assert row == "n" * 21 + "…  FAILED  " + "r" * 7 + "…"


def test_what_is_too_wide_in_the_middle_is_cut_too_and_short_columns_stay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    table(
        ("ID", "WORKFLOW", "STATE", "DONE", "REASON"),
        [("i" * 12, "w" * 64, "SUCCEEDED", "3/3", "r" * 9)],
    )
    _, row = capsys.readouterr().out.splitlines()
    assert row == "i" * 12 + "  " + "w" * 18 + "…  SUCCEEDED  3/3   " + "r" * 7 + "…"


def test_each_task_of_a_run_has_its_colour_in_the_logs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    lines = _Lines(named=True)
    for task in ("load", "save", "load"):
        lines.take(LogPiece(task=task, attempt=1, stream="stdout", offset=0, next=2, text="a\n"))
    load, save, again = capsys.readouterr().out.splitlines()
    assert load == again == "\x1b[36mload |\x1b[0m a"
    assert save == "\x1b[33msave |\x1b[0m a"


def test_a_line_of_a_story_after_a_clock_that_was_set_back_has_one_sign() -> None:
    at = datetime(2026, 11, 26, 10, 2, 3, 45_000, tzinfo=UTC)
    line = StoryLine(revision=1, at=at, type="run.started", text="RUNNING")
    gaps = [story_text(replace(line, since=since)).split()[1] for since in (40, -40, -3_597_873)]
    assert gaps == ["+0.040s", "-0.040s", "-59m58s"]
