"""The units of docs/service.md are units, and the commands in them exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "service.md"
PROGRAM = "/opt/grampus/bin/grampus"
UNITS = re.findall(r"```ini\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("unit", UNITS)
def test_the_command_of_a_unit_exists_with_its_options(unit: str) -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    program, *words = shlex.split(line)
    assert program == PROGRAM
    verbs = list(takewhile(lambda word: not word.startswith("-"), words))
    done = subprocess.run(
        [sys.executable, "-m", "grampus.cli.main", *verbs, "--help"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    for option in [word for word in words if word.startswith("--")]:
        assert f"{option} " in done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    assert len(UNITS) == 3
    paths = []
    for number, unit in enumerate(UNITS):
        path = tmp_path / f"grampus-{number}.service"
        path.write_text(unit.replace(PROGRAM, "/bin/true"))
        paths.append(str(path))
    done = subprocess.run(
        ["systemd-analyze", "verify", *paths], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
