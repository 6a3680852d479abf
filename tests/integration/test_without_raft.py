"""One node needs no Rust: nothing of it imports grampus_raft."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_BLOCKED = "import sys; sys.modules['grampus_raft'] = None; "


@pytest.mark.parametrize("module", ["grampus.node", "grampus.cli.main", "grampus.cli.up"])
def test_one_node_is_imported_without_it(module: str) -> None:
    command = [sys.executable, "-c", f"{_BLOCKED}import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_server_of_a_cluster_says_what_it_needs(tmp_path: Path) -> None:
    arguments = f"server start --data {tmp_path} --listen 127.0.0.1:0 --name a --init"
    script = (
        f"{_BLOCKED}sys.argv = ['grampus', *{arguments.split()}]; "
        "from grampus.cli.main import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "needs grampus_raft, which is not installed: get Rust" in done.stderr
    assert "Traceback" not in done.stderr
