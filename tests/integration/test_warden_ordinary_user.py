"""The other tests of the warden, told again by an ordinary user, where root runs them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warden_ground import insist_on_cgroups

from grampus.worker import cgroup

NOBODY = 65534
ROOT = Path(__file__).parents[2]
PARTS = ("attempts", "ending", "deaths")


def as_nobody(
    folder: Path, command: list[str], within: float, root: bool = False
) -> subprocess.CompletedProcess[str]:
    """With `root`, the command itself becomes nobody."""
    user = None if root else NOBODY
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
        user=user,
        group=user,
        extra_groups=None if root else [],
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


#: Enters a cgroup and becomes an ordinary user: only root may move a process into a delegated one.
ENTER = (
    "import os, sys; open(sys.argv[1] + '/cgroup.procs', 'w').write('0'); os.setgroups([]);"
    f"os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3);"
    "os.execv(sys.argv[2], sys.argv[2:])"
)
IN_A_CGROUP = (
    "cgroup and (exit_codes or (five_hundred and not exits and not ended) or ignores_term"
    " or kill_9_of_a_shim or kill_9_of_the_warden_leaves or mended or made_in_its)"
)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can delegate a cgroup")
@pytest.mark.timeout(60)
def test_an_ordinary_user_contains_attempts_in_a_cgroup_delegated_to_it() -> None:
    insist_on_cgroups()
    folder = Path("/tmp") / f"grampus-delegated-{os.getpid()}"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    home = Path(cgroup.path(f"test-{os.getpid()}"))
    home.mkdir()
    try:
        for path in (home, home / "cgroup.procs", home / "cgroup.subtree_control"):
            os.chown(path, NOBODY, NOBODY)
        python = interpreter(folder)
        tests = [str(Path(__file__).parent / f"test_warden_{n}.py") for n in PARTS]
        options = ["-p", "no:cacheprovider", f"--basetemp={folder}/t", "-rs", "--tb=short"]
        command = [python, "-m", "pytest", *options, "-k", IN_A_CGROUP, *tests]
        enter = [sys.executable, "-c", ENTER, str(home), *command]
        done = as_nobody(folder, enter, 50, root=True)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        assert "SKIPPED" not in done.stdout
        assert [each.name for each in home.iterdir() if each.is_dir()] == []
        print(done.stdout[-500:])
    finally:
        while not cgroup.clear(str(home)):
            time.sleep(0.005)
        shutil.rmtree(folder)
