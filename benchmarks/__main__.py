"""`python -m benchmarks [NAME ...]`: all of them, or those named."""

from __future__ import annotations

import importlib
import sys

NAMES = ("workflows", "many", "overload", "big_ledger", "warm", "spawn", "rpc", "log")


def main() -> None:
    names = sys.argv[1:] or NAMES
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    for name in names:
        print(f"\n== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
