"""What `/proc` says about processes: who descends from whom, and who carries a mark.

Rule: an answer is a snapshot. Whoever ends processes asks again until nothing is left, and takes
emptiness only from `waitpid` (a parent without children), never from here.
"""

from __future__ import annotations

import os

#: In the environment of every attempt: `<instance of the warden>/<slot>`.
MARK = "GRAMPUS_MARK"


def children(pid: int) -> list[int]:
    """The direct children of a process, of all its threads; zombies too. Empty when it is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
        except FileNotFoundError:
            # The thread ended, or the kernel was built without this file.
            if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                return _children_by_scan(pid)
        except OSError:
            continue
    return found


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, parents before their children, without `pid` itself."""
    found: list[int] = []
    known = {pid}
    todo = [pid]
    while todo:
        for child in children(todo.pop()):
            if child not in known:
                known.add(child)
                found.append(child)
                todo.append(child)
    return found


def marked(instance: str) -> list[int]:
    """Processes that a warden with this instance started, as far as their environment says so."""
    wanted = f"{MARK}={instance}/".encode()
    found: list[int] = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                environ = file.read()
        except OSError:
            continue  # It ended, or belongs to somebody else.
        if any(entry.startswith(wanted) for entry in environ.split(b"\0")):
            found.append(int(name))
    return found


def _children_by_scan(pid: int) -> list[int]:
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if parent == pid:
                found.append(int(name))
    return found
