"""Keys of a node that is killed with `kill -9` again and again: nothing that was answered is lost,
and a watch that lives through it sees every change once, in order."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from grampus.errors import GrampusError
from grampus.sdk.client import Client
from tests.acceptance.node import Ground, until

LIVES = 4
WRITERS = 3
#: Acknowledged puts per life, before it is killed.
PUTS = 60


class Writer(threading.Thread):
    """Puts numbers to keys of its own, each once; what was answered is in `done`."""

    def __init__(self, ground: Ground, name: str) -> None:
        super().__init__(daemon=True)
        self.ground, self.prefix = ground, f"/k/{name}/"
        self.done: dict[str, int] = {}
        self.over = False

    def run(self) -> None:
        number = 0
        while not self.over:
            try:
                with self.ground.client(timeout=2.0) as client:
                    while not self.over:
                        number += 1
                        key = f"{self.prefix}{number:06}"
                        self.done[key] = client.kv.put(key, str(number), if_revision=0)
            except GrampusError:
                time.sleep(0.05)


class Watcher(threading.Thread):
    """One watch that is never begun anew by its user."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.seen: dict[str, int] = {}
        self.revisions: list[int] = []

    def run(self) -> None:
        for changed in self.client.kv.watch("/k/", first=1):
            self.revisions.append(changed.revision)
            for change in changed.changes:
                assert change.key not in self.seen, f"{change.key} is told twice"
                self.seen[change.key] = changed.revision
                if change.key == "/k/end":
                    return


def test_keys_and_watches_live_through_kill_9(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    node = ground.start("--listen", "127.0.0.1:0").ready()
    port = node.port
    writers = [Writer(ground, str(number)) for number in range(WRITERS)]
    client = ground.client(timeout=2.0)
    watcher = Watcher(client)
    try:
        for thread in (*writers, watcher):
            thread.start()
        for _ in range(LIVES):
            before = sum(len(w.done) for w in writers)
            until(lambda least=before + PUTS: sum(len(w.done) for w in writers) >= least)
            node.kill()
            node = ground.start("--listen", f"127.0.0.1:{port}").ready()
        for writer in writers:
            writer.over = True
            writer.join(20)
        done = {key: revision for writer in writers for key, revision in writer.done.items()}
        assert len(done) >= LIVES * PUTS
        with ground.client() as late:
            found = {key.key: key.mod_revision for key in late.kv.range("/k/")}
            end = late.kv.put("/k/end", "")
        assert done.items() <= found.items(), "an acknowledged put is lost"
        until(lambda: not watcher.is_alive())
        assert watcher.seen == {**found, "/k/end": end}
        assert watcher.revisions == sorted(set(watcher.revisions))
    finally:
        node.stop()
        node.kill()
        client.close()
    until(lambda: not ground.processes(), 20)
