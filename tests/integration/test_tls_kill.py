"""A process that renews its certificate again and again, and is killed in the middle of it."""

from __future__ import annotations

import random
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from grampus.rpc.tls import NodeTls
from grampus.rpc.tls_folder import TlsFolder

pytestmark = pytest.mark.timeout(60)
NOW = 1_800_000_000_000
#: Prints a byte after each renewal; of two certificates the later one ends later.
CHILD = """
import sys
from pathlib import Path
from grampus.rpc.certificates import life
from grampus.rpc.tls_folder import TlsFolder
folder = TlsFolder(Path(sys.argv[1]))
own, authority = folder.subject(), folder.authority()
now = life(folder.certificate.read_bytes())[0] + 3_600_000
while True:
    now += 1000
    issued = authority.issue(folder.request(), own.cluster, own.role, own.name, [], now)
    folder.renew(issued, now)
    sys.stdout.buffer.write(b".")
    sys.stdout.flush()
"""


def test_kill_9_leaves_a_whole_certificate_that_only_its_owner_reads(tmp_path: Path) -> None:
    folder, chance = TlsFolder(tmp_path), random.Random(7)
    folder.found("abc", "s1", [], NOW)
    subject, ends = folder.subject(), folder.ends()
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        count = chance.randrange(1, 40)
        assert len(child.stdout.read(count)) == count
        child.kill()
        done = count + len(child.stdout.read())
        child.wait()
        child.stdout.close()
        # One more may be in place, and not told.
        assert folder.ends() - ends in (1000 * done, 1000 * (done + 1))
        ends = folder.ends()
        assert folder.subject() == subject
        NodeTls(folder)
        for path in folder.path.iterdir():
            wanted = 0o644 if path.name == "ca.pem" else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path
