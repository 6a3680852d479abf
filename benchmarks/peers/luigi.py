"""Luigi: its local scheduler, 4 worker processes; a task is complete when its file is there."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    import luigi  # type: ignore[import-not-found]

    class Shell(luigi.Task):  # type: ignore[misc]
        folder = luigi.Parameter()
        number = luigi.IntParameter()
        chained = luigi.BoolParameter()

        def requires(self) -> list[luigi.Task]:
            before = self.number - 1
            return [Shell(self.folder, before, True)] if self.chained and before >= 0 else []

        def output(self) -> luigi.LocalTarget:
            return luigi.LocalTarget(str(Path(self.folder, str(self.number))))

        def run(self) -> None:
            subprocess.run(["sh", "-c", "true"], check=True)
            Path(self.output().path).touch()

    def took(tasks: list[luigi.Task], workers: int) -> float:
        began = time.perf_counter()
        done = luigi.build(tasks, local_scheduler=True, workers=workers, log_level="CRITICAL")
        assert done
        return time.perf_counter() - began

    chain, fan_out = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as many:
        line = took([Shell(one, chain - 1, True)], 1) / chain * 1e3
        wide = took([Shell(many, number, False) for number in range(fan_out)], 4)
    print(json.dumps({"chain": line, "fan_out": fan_out / wide}))


if __name__ == "__main__":
    main()
