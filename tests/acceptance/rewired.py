"""`grampus`, with other ports to connect to: `python rewired.py FILE ARGUMENT...`.

FILE is a JSON object: instead of a port of this machine, which one. The program itself is what it
always is: it is told nothing of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from grampus.rpc import client


def rewire(ports: dict[str, int]) -> None:
    """Before whoever connects is imported."""
    straight = client.connect

    async def connect(host: str, port: int, *rest: Any, **named: Any) -> Any:
        return await straight(host, ports.get(str(port), port), *rest, **named)

    client.connect = connect


if __name__ == "__main__":
    rewire(json.loads(Path(sys.argv[1]).read_text()))
    from grampus.cli.main import main

    main(sys.argv[2:])
