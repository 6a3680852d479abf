"""The other tests of the warden, told again by an ordinary user, where root runs them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NOBODY = 65534
ROOT = Path(__file__).parents[2]


def as_nobody(folder: Path, command: list[str], within: float) -> subprocess.CompletedProcess[str]:
    packages = Path(str(importlib.util.find_spec("pytest").origin)).parents[1]  # type: ignore[union-attr]
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "PYTHONPATH": f"{ROOT / 'src'}:{packages}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=within,
    )


def interpreter(folder: Path) -> str:
    """A Python of this version that nobody may execute, with the packages of this one; or skips."""
    version = "{}.{}".format(*sys.version_info[:2])
    reasons: list[str] = []
    names = (sys.executable, shutil.which(f"python{version}", path="/usr/local/bin:/usr/bin"))
    for name in filter(None, names):
        probe = "import sys, msgspec, pytest, hypothesis, grampus.worker.orders;"
        probe += f"assert sys.version_info[:2] == {sys.version_info[:2]}"
        try:
            done = as_nobody(folder, [name, "-c", probe], 20)
        except (OSError, subprocess.SubprocessError) as error:
            reasons.append(f"{name}: {error}")
            continue
        if done.returncode == 0:
            return name
        reasons.append(f"{name}: {done.stderr.strip()[-200:]}")
    pytest.skip("no interpreter that an ordinary user may run: " + "; ".join(reasons))


@pytest.mark.skipif(os.geteuid() != 0, reason="this already is an ordinary user")
@pytest.mark.timeout(120)
def test_all_of_it_holds_for_an_ordinary_user() -> None:
    folder = Path("/tmp") / f"grampus-nobody-{os.getpid()}"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    try:
        python = interpreter(folder)
        files = sorted(Path(__file__).parent.glob("test_warden_*.py"))
        tests = [str(p) for p in files if p.name != Path(__file__).name]
        options = ["-p", "no:cacheprovider", f"--basetemp={folder}/t", "-rsf", "--tb=short"]
        done = as_nobody(folder, [python, "-m", "pytest", *options, *tests], 110)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        print(done.stdout[-1500:])
    finally:
        shutil.rmtree(folder)
