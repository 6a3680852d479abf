"""The probes of `grampus doctor`. Each looks at one thing and says what it found, and what to do.

Rule: a probe that breaks is a finding, never an end; none takes longer than a few seconds, and none
leaves anything behind. A node that runs is asked by `checkup_node`.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from grampus.cli.checkup_node import look_at_node, look_at_ports
from grampus.cli.finding import Finding
from grampus.config import Config
from grampus.errors import GrampusError
from grampus.worker import cgroup
from grampus.worker.cgroup import Cgroup
from grampus.worker.containment import Containment, PidNamespace, Subreaper

_GIB = 1 << 30
_SYNCS = 20
#: 2024-01-01: no clock of a machine that runs this is before it.
_TOO_EARLY = 1_704_067_200_000


def check_machine(config: Config) -> list[Finding]:
    """All probes, in the order in which people read them."""
    probes: list[Callable[[Config], Finding]] = [
        *(_versions, _kernel, _containment, _pid_namespaces, _user_namespaces, _cgroup, _ptrace),
        *(_warm, _clock, _disk, _fsync, _files, look_at_node, look_at_ports),
    ]
    return [_guarded(probe, config) for probe in probes]


def _guarded(probe: Callable[[Config], Finding], config: Config) -> Finding:
    try:
        return probe(config)
    except (OSError, ValueError, GrampusError) as error:
        name = probe.__name__.removeprefix("look_at_").strip("_").replace("_", " ")
        return Finding(name, "warn", f"cannot be looked at: {error}")


def _versions(config: Config) -> Finding:
    def of(package: str) -> str:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            return f"{package} (not installed)"

    python = f"Python {platform.python_version()}"
    return Finding("versions", "ok", ", ".join([of("grampus"), python, of("apsw"), of("msgspec")]))


def _kernel(config: Config) -> Finding:
    release = os.uname().release
    major, minor = (int("".join(filter(str.isdigit, part))) for part in release.split(".")[:2])
    if (major, minor) < (5, 4):
        return Finding("kernel", "fail", release, "Linux 5.4 or newer is needed")
    return Finding("kernel", "ok", release)


# Containment


def probe(containment: Containment) -> str:
    """Why no attempt can be contained in this way here, or empty. One is started, `/bin/true`."""
    reader, writer = os.pipe()
    try:
        pid = containment.fork(0)
        if pid == 0:
            _live(containment, writer)
        status = os.waitpid(pid, 0)[1]
        os.close(writer)
        writer = -1
        reason = os.read(reader, 512).decode()
    except OSError as error:
        return error.strerror or str(error)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    return reason or ("" if status == 0 else "it ends at once")


def _live(containment: Containment, writer: int) -> NoReturn:
    code = 1
    try:
        containment.enter()
        program = next(p for p in ("/bin/true", "/usr/bin/true", "/bin/sh") if os.path.exists(p))
        end = os.waitpid(os.posix_spawn(program, [program], {}), 0)[1]
        code = int(end != 0 or not containment.empty())
    except OSError as error:
        os.write(writer, (error.strerror or str(error)).encode())
    finally:
        os._exit(code)


def probe_cgroup() -> str:
    """As `probe`, in a folder that is removed again."""
    try:
        containment = Cgroup(cgroup.path(f"doctor-{os.urandom(8).hex()}"))
    except OSError as error:
        return error.strerror or str(error)
    try:
        containment.open()
        return probe(containment)
    except OSError as error:
        return error.strerror or str(error)
    finally:
        deadline = time.monotonic() + 2
        while not cgroup.clear(containment.folder) and time.monotonic() < deadline:
            time.sleep(0.001)


def _containment(config: Config) -> Finding:
    """What a node started here now would choose."""
    promise = "whatever ends, nothing stays"
    if not probe(PidNamespace()):
        return Finding("containment", "ok", f"{PidNamespace.name}: {promise}")
    if not probe_cgroup():
        return Finding("containment", "ok", f"{Cgroup.name}: {promise}")
    if reason := probe(Subreaper()):
        advice = "attempts cannot be contained: run as another user or on another kernel"
        return Finding("containment", "fail", reason, advice)
    advice = "a task killed together with the node may leave processes until the next start"
    return Finding("containment", "warn", Subreaper.name, advice)


def _pid_namespaces(config: Config) -> Finding:
    if reason := probe(PidNamespace()):
        advice = "allow namespaces (sysctl, or --privileged / seccomp of the container)"
        return Finding("pid namespaces", "warn", f"not allowed: {reason}", advice)
    how = "as root" if os.geteuid() == 0 else "in a user namespace"
    return Finding("pid namespaces", "ok", f"allowed, {how}, with a /proc of their own")


def _user_namespaces(config: Config) -> Finding:
    values = {
        "user.max_user_namespaces": _read("/proc/sys/user/max_user_namespaces"),
        "kernel.unprivileged_userns_clone": _read("/proc/sys/kernel/unprivileged_userns_clone"),
        "kernel.apparmor_restrict_unprivileged_userns": _read(
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
        ),
    }
    shown = ", ".join(f"{name} = {text}" for name, text in values.items() if text is not None)
    off = (
        values["user.max_user_namespaces"] == "0"
        or values["kernel.unprivileged_userns_clone"] == "0"
        or values["kernel.apparmor_restrict_unprivileged_userns"] == "1"
    )
    if off and os.geteuid() != 0:
        advice = "an ordinary user needs them for PID namespaces: ask for sysctl"
        return Finding("user namespaces", "warn", shown, advice)
    note = "; not needed by root" if os.geteuid() == 0 else ""
    return Finding("user namespaces", "ok", (shown or "no limits known") + note)


def _cgroup(config: Config) -> Finding:
    """The second choice: missed only where there is no PID namespace."""
    if reason := probe_cgroup():
        if probe(PidNamespace()):
            advice = "allow namespaces, or delegate a cgroup (systemd: Delegate=yes)"
            return Finding("cgroup", "warn", f"cannot be used: {reason}", advice)
        return Finding("cgroup", "ok", f"cannot be used: {reason}; not needed")
    return Finding("cgroup", "ok", f"v2 can be used, in {os.path.dirname(cgroup.path(''))}")


def _ptrace(config: Config) -> Finding:
    scope = _read("/proc/sys/kernel/yama/ptrace_scope")
    if scope is None:
        return Finding("ptrace", "ok", "no yama; tasks in a PID namespace see only themselves")
    if scope == "0" and probe(PidNamespace()):
        advice = "tasks can read the memory of this user's processes: kernel.yama.ptrace_scope = 1"
        return Finding("ptrace", "warn", "kernel.yama.ptrace_scope = 0", advice)
    return Finding("ptrace", "ok", f"kernel.yama.ptrace_scope = {scope}")


def _warm(config: Config) -> Finding:
    if not config.warm:
        return Finding("warm python", "ok", f"off ({config.sources['warm']})")
    if probe(PidNamespace()):
        return Finding("warm python", "warn", "off", "Python tasks start cold: see containment")
    return Finding("warm python", "ok", "on")


# Clock, disk, limits


def _clock(config: Config) -> Finding:
    from grampus.clock import SystemClock

    if SystemClock().now() < _TOO_EARLY:
        return Finding("clock", "fail", "it is years behind", "set the clock of this machine")
    if not SystemClock().synchronised():
        advice = "schedules follow it: let chrony or systemd-timesyncd set it"
        return Finding("clock", "warn", "nothing keeps it right, says the kernel", advice)
    return Finding("clock", "ok", "synchronised")


def _existing(path: Path) -> Path:
    while not path.is_dir():
        path = path.parent
    return path


def _disk(config: Config) -> Finding:
    folder = _existing(config.data)
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / _GIB:.1f} GiB free at {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(
            "disk", "fail", f"{folder} cannot be written", "choose --data, or its rights"
        )
    if usage.free < _GIB // 8:
        return Finding("disk", "fail", found, "a node stops when its disk is full: make room")
    if usage.free < _GIB:
        return Finding("disk", "warn", found, "make room")
    return Finding("disk", "ok", found)


def _fsync(config: Config) -> Finding:
    folder = _existing(config.data)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(1 << 16))
        file.flush()
        os.fsync(file.fileno())
        spans = list(_syncs(file.fileno()))
    median, worst = statistics.median(spans), max(spans)
    found = f"{median:.2f} ms, at worst {worst:.1f} ms, at {folder}"
    if median > 20:
        advice = "every accepted write waits for it: use a local SSD"
        return Finding("fsync", "warn", found, advice)
    return Finding("fsync", "ok", found)


def _syncs(fd: int) -> Iterator[float]:
    deadline = time.monotonic() + 3
    for i in range(_SYNCS):
        begin = time.monotonic()
        os.pwrite(fd, bytes([i + 1]) * 200, i * 200)
        os.fdatasync(fd)
        yield (time.monotonic() - begin) * 1000
        if time.monotonic() > deadline:
            return


def _files(config: Config) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = 256 + 4 * config.slots
    found = f"{soft} (at most {hard})"
    if soft < need:
        return Finding("open files", "warn", found, f"ulimit -n {max(need, 1024)}")
    return Finding("open files", "ok", found)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
