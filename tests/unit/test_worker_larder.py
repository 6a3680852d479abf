"""Which of its blobs a worker keeps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from grampus.blobs import Blobs
from grampus.worker.blobs import Exchange
from grampus.worker.larder import UNUSED, Larder

NOW = 10 * UNUSED


class Clock:
    def now(self) -> int:
        return NOW * 1000

    def ticks(self) -> int:
        return 0

    def synchronised(self) -> bool:
        return True


def test_what_nobody_has_wanted_for_long_goes_and_what_is_given_to_an_attempt_stays(
    tmp_path: Path,
) -> None:
    blobs = Blobs(tmp_path)
    nobody: Any = None
    exchange = Exchange(blobs, nobody)
    old, wanted, young = (blobs.put(data) for data in (b"old", b"wanted", b"young"))
    for hash in (old, wanted):
        os.utime(blobs.path(hash), (NOW - UNUSED - 1,) * 2)
    os.utime(blobs.path(young), (NOW - UNUSED + 1,) * 2)
    assert Path(exchange.path(wanted)).read_bytes() == b"wanted"
    assert Larder(blobs, Clock()).clear() == 1
    assert [blobs.size(hash) for hash in (old, wanted, young)] == [-1, 6, 5]
