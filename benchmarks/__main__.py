"""`python -m benchmarks [NAME ...]`: all of them, or those named; `--peers dask,...`: others."""

from __future__ import annotations

import argparse
import importlib

NAMES = (
    *("workflows", "many", "overload", "big_ledger", "warm", "cost", "spawn", "rpc", "log", "kv"),
    "checksum",
)


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
        print(f"\n== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
