"""Options and profiles of the tests."""

from __future__ import annotations

import os

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
