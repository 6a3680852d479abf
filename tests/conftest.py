"""Options and profiles of the tests."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("ci", deadline=None, suppress_health_check=_SLOW)
settings.register_profile(
    "soak",
    deadline=None,
    suppress_health_check=_SLOW,
    max_examples=1_000 * int(os.environ.get("SOAK", "1")),
)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write what came into the transcripts; read the diff"
    )


# Tests that start a cluster need grampus_raft, which needs Rust to be built. Without it they are
# skipped, and the summary says so; in CI they fail. They are known by their marker, `raft`, or by
# failing to import it.
_NO_RAFT = importlib.util.find_spec("grampus_raft") is None
_SKIPS = _NO_RAFT and os.environ.get("CI") != "true"
_REASON = "grampus_raft is not built"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if _NO_RAFT and item.get_closest_marker("raft"):
        if not _SKIPS:
            pytest.fail(_REASON, pytrace=False)
        pytest.skip(_REASON)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if _SKIPS and report.failed and "No module named 'grampus_raft'" in str(report.longrepr):
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: {_REASON}")
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(_REASON in str(r.longrepr) for r in skipped)
    if count:
        terminalreporter.write_line(
            f"SKIPPED: what needs a cluster ({count} modules and tests), for {_REASON}. "
            "Get Rust 1.85 or newer from https://rustup.rs, then say: make raft",
            yellow=True,
        )
