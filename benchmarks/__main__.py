"""`python -m benchmarks [NAME ...]`: all of them, or those named; `--peers dask,...`: others.

What takes longest is shorter among all, and says so; by its own name it is measured in full.
"""

from __future__ import annotations

import argparse
import importlib
import time

NAMES = (
    *("workflows", "many", "overload", "big_ledger", "warm", "cost", "spawn", "rpc", "log", "kv"),
    "checksum",
)
BRIEF = {"kv": ["--rounds", "1", "--seconds", "1"]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; all when none is named")
    parser.add_argument("--peers", help="measure these instead: celery,dask,hyperqueue,luigi")
    options = parser.parse_args()
    if options.peers:
        importlib.import_module("benchmarks.peers").main(options.peers.split(","))
        return
    names = options.names or NAMES
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    for name in names:
        brief = () if options.names else BRIEF.get(name, ())
        print(f"\n== {' '.join((name, *brief))}", flush=True)
        began = time.monotonic()
        module = importlib.import_module(f"benchmarks.{name}")
        module.main(list(brief)) if brief else module.main()
        print(f"({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
