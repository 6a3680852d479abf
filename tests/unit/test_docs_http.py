"""docs/http.md tells every problem that there is, with its status."""

from __future__ import annotations

import re
from pathlib import Path

from grampus.api.problems import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text()


def test_every_problem_is_in_the_table_once_with_its_status() -> None:
    told = [
        (kind, int(status))
        for status, kinds, what in re.findall(r"^\| (\d{3}) \| (.*?) \| (.*?) ?\|$", PAGE, re.M)
        for kind in re.findall(r"`([a-z-]+)`", kinds)
    ]
    assert sorted(told) == sorted((kind, status) for kind, (status, _) in KINDS.items())
