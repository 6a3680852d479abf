"""`grampus`, over a disk that a test hurts: `python hanging_disk.py FILE ARGUMENT...`.

Rule: FILE says how a sync is. `hang`: it does not come back while FILE says so. A number: it takes
so many seconds more. `quick`: it is over at once, so that nothing waits for a thread; what is
written survives the process all the same. The program itself is what it always is.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from grampus.cli.main import main

Sync = Callable[[int], None]


def hurt(sync: Sync, file: Path) -> Sync:
    def hurt_sync(fd: int) -> None:
        begun = time.monotonic()
        while (said := file.read_text()) not in ("", "quick"):
            if said != "hang" and time.monotonic() - begun >= float(said):
                break
            time.sleep(0.002)
        if said != "quick":
            sync(fd)

    return hurt_sync


if __name__ == "__main__":
    place = Path(sys.argv[1])
    os.fdatasync = hurt(os.fdatasync, place)
    os.fsync = hurt(os.fsync, place)
    main(sys.argv[2:])
