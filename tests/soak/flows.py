"""The workflows of the soak: every execution writes its life into one file.

A line is `what run task attempt execution pid uptime boot`. `what` is `start`, `beat`, `end` (it
succeeded), `fail` (it failed on purpose, once) or `overlap` (another process of the task lives:
each holds a lock that the kernel frees with its last process). An execution names itself, because
process ids are small in a namespace and come again; its result is that name.
"""

from __future__ import annotations

from pathlib import Path

#: Runs of each workflow in one wave, and their tasks: 200 tasks.
WAVE = {"rows": 10, "snakes": 10, "slow": 10}
TASKS = {"rows": 10, "snakes": 8, "slow": 2}

_SHELL = r"""
name=$GRAMPUS_RUN.$GRAMPUS_TASK
read -r me < /proc/sys/kernel/random/uuid
read -r boot < /proc/sys/kernel/random/boot_id
note() {
  read -r up rest < /proc/uptime
  echo "$1 $GRAMPUS_RUN $GRAMPUS_TASK $GRAMPUS_ATTEMPT $me $$ $up $boot" >> "$PLACE/lines"
}
exec 9>>"$PLACE/$name.lock"
flock -n 9 || note overlap
note start
for beat in $(seq BEATS); do sleep 0.1; note beat; done
EXTRA
echo "execution=$me" > "$GRAMPUS_OUTPUT"
note end
"""
#: Fails in its first life that comes so far.
_ONCE = '[ -e "$PLACE/$name.once" ] || { touch "$PLACE/$name.once"; note fail; exit 1; }'
#: A process that does not want to go.
_STAYS = "(trap '' TERM HUP; setsid sleep 60) &"

_PYTHON = """
import fcntl
import os
import time
import uuid
from pathlib import Path

from grampus import Retry, task, workflow

PLACE = Path({place!r})
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def live(beats, fails=False):
    run, name, attempt = (os.environ["GRAMPUS_" + v] for v in ("RUN", "TASK", "ATTEMPT"))
    me = uuid.uuid4()

    def note(what):
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        words = (what, run, name, attempt, me, os.getpid(), f"{{uptime:.3f}}", BOOT)
        with open(PLACE / "lines", "ab", buffering=0) as file:
            file.write((" ".join(map(str, words)) + "\\n").encode())

    lock = os.open(PLACE / f"{{run}}.{{name}}.lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        note("overlap")
    note("start")
    for _ in range(beats):
        time.sleep(0.1)
        note("beat")
    once = PLACE / f"{{run}}.{{name}}.once"
    if fails and not once.exists():
        once.touch()
        note("fail")
        raise SystemExit(1)
    note("end")
    return {{"execution": str(me)}}


@task(max_lost=1000)
def steady(beats: int, before: list = ()) -> dict:
    return live(beats)


@task(max_lost=1000, retry=Retry(1))
def fails_once(beats: int, before: list = ()) -> dict:
    return live(beats, fails=True)


@workflow
def snakes():
    first = [steady(beats) for beats in (3, 6, 9)]
    then = [fails_once(beats, first) for beats in (2, 5)]
    last = [steady(beats, then) for beats in (4, 8)]
    steady(2, last)
"""


def _shell(name: str, beats: int, extra: str, after: str, retry: int) -> list[str]:
    text = _SHELL.replace("BEATS", str(beats)).replace("EXTRA", extra)
    lines = [f"  {name}:", f"    after: [{after}]", f"    retry: {{max: {retry}}}", "    shell: |"]
    return lines + [f"      {line}" for line in text.strip().splitlines()]


def _yaml(name: str, place: Path, tasks: list[str]) -> str:
    head = [f"workflow: {name}", f"defaults: {{max_lost: 1000, env: {{PLACE: '{place}'}}}}"]
    return "\n".join([*head, "tasks:", *tasks]) + "\n"


def _rows(place: Path) -> str:
    """Three rows of three and a last one."""
    tasks: list[str] = []
    for row, beats in enumerate((2, 6, 12)):
        for column in range(3):
            above = f"t{row - 1}{column}, t{row - 1}{(column + 1) % 3}" if row else ""
            extra = {0: "", 1: _ONCE, 2: _STAYS}[column]
            tasks += _shell(f"t{row}{column}", beats, extra, above, 1 if column == 1 else 0)
    tasks += _shell("last", 1, "", "t20, t21, t22", 0)
    return _yaml("rows", place, tasks)


def _slow(place: Path) -> str:
    """Long enough to outlive several nodes."""
    tasks = [*_shell("one", 40, "", "", 0), *_shell("two", 70, _ONCE, "", 1)]
    return _yaml("slow", place, tasks)


def write(folder: Path, place: Path) -> list[Path]:
    files = {
        "rows.yaml": _rows(place),
        "slow.yaml": _slow(place),
        "snakes.py": _PYTHON.format(place=str(place)),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]
