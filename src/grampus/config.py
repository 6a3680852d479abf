"""Every setting of Grampus, as one frozen value that is passed down. Read here and nowhere else.

Rule: default < `$XDG_CONFIG_HOME/grampus/grampus.toml` < `DATA/grampus.toml` < environment
(`GRAMPUS_SLOTS`, ...) < command line. Each value remembers where it came from. All that is wrong
is told at once, with file, line and the nearest name. Secrets are no settings: see `sdk.discovery`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from grampus.errors import InvalidInput, Problem

DEFAULT_SERVER = "http://127.0.0.1:8470"
FILE = "grampus.toml"
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = re.compile(r"(?:\d{1,9}(?:ms|s|m|h|d|w))+\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
_LISTEN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})\Z")
_SERVER = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?\Z")


class Listen(Struct, frozen=True):
    """Where a node listens: `port` for HTTP, the next one for other nodes; 0 is any free port."""

    host: str
    port: int

    @property
    def node_port(self) -> int:
        return self.port + 1 if self.port else 0

    @classmethod
    def of_nodes(cls, host: str, node_port: int) -> Listen:
        """As a person says it who wants the server that listens for nodes there."""
        return cls(host, node_port - 1)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Config(Struct, frozen=True, kw_only=True):
    """Durations are milliseconds."""

    #: All that a node keeps.
    data: Path
    #: What commands of this user share: addresses and tokens of nodes, crash reports.
    state: Path
    listen: Listen
    #: The node's name.
    name: str
    #: Worker group of the node's own worker.
    group: str
    #: Attempts that the node's worker runs at once.
    slots: int
    #: Python tasks may start from a process that has imported their module already.
    warm: bool
    #: Finished runs and their logs are kept for this long.
    retention: int
    #: Between TERM and KILL when a node stops and a task says nothing else.
    kill_grace: int
    #: `[cluster] servers`: where they listen. Who joins tries them, and a client without `server`.
    cluster_servers: tuple[Listen, ...]
    #: Servers that a client tries in turn; () finds the node of this user.
    server: tuple[str, ...]
    #: File that holds the token a client shows.
    token_file: Path | None
    #: File with the authority that a client trusts; None is its own node's, else the system's.
    ca: Path | None
    #: Where each setting came from, for people.
    sources: dict[str, str]


class Row(Struct, frozen=True):
    """One line of `config show`."""

    name: str
    #: As it could be written in the file.
    value: str | int | bool | list[str] | None
    source: str


def read_duration(value: object) -> int:
    """In ms. Raises ValueError, which says what is allowed."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**9:
        return value * 1000
    if isinstance(value, str) and _DURATION.match(value.strip()):
        parts = re.findall(r"(\d+)(ms|s|m|h|d|w)", value)
        return sum(int(count) * _UNITS[unit] for count, unit in parts)
    raise ValueError("text such as 500ms, 10s, 1h30m, 30d")


def _path(value: object) -> Path:
    if isinstance(value, str | Path) and str(value).strip() and "\0" not in str(value):
        return Path(os.path.abspath(os.path.expanduser(value)))
    raise ValueError("the path of a folder or file")


def _slots(value: object) -> int:
    text = str(value)
    if not isinstance(value, bool) and text.isascii() and text.isdigit() and len(text) < 6:
        if 1 <= int(text) <= 10_000:
            return int(text)
    raise ValueError("a whole number from 1 to 10000")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError("true or false")


def _name(value: object) -> str:
    if isinstance(value, str) and _NAME.match(value):
        return value
    raise ValueError("letters, digits, `_`, `.` and `-`, at most 63, the first a letter or digit")


def read_listen(value: object) -> Listen:
    """Raises ValueError, which says what is allowed."""
    match = _LISTEN.match(value) if isinstance(value, str) else None
    # The next port must exist too.
    if match and int(match[2]) <= 65534:
        return Listen(match[1].strip("[]"), int(match[2]))
    raise ValueError("HOST:PORT such as 127.0.0.1:8470; the next port is used for nodes")


def _servers(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, list | tuple) and all(isinstance(p, str) for p in parts):
        urls = tuple(p.strip().rstrip("/") for p in parts if p.strip())
        matches = [_SERVER.match(url) for url in urls]
        if 1 <= len(urls) <= 16 and all(m and int(m[1] or 1) <= 65535 for m in matches):
            return urls
    raise ValueError("addresses such as http://127.0.0.1:8470, separated by commas")


def _cluster_servers(value: object) -> tuple[Listen, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, list) and 1 <= len(parts) <= 16:
        return tuple(read_listen(p.strip() if isinstance(p, str) else p) for p in parts)
    raise ValueError('a list of addresses such as ["10.0.0.1:8470", "10.0.0.2:8470"]')


_READ: dict[str, Callable[[object], Any]] = {
    "data": _path,
    "state": _path,
    "listen": read_listen,
    "name": _name,
    "group": _name,
    "slots": _slots,
    "warm": _flag,
    "retention": read_duration,
    "kill_grace": read_duration,
    "cluster_servers": _cluster_servers,
    "server": _servers,
    "token_file": _path,
    "ca": _path,
}


def load_config(
    flags: Mapping[str, object | None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """All settings; `flags` are those of the command line, None where not given.

    Raises InvalidInput with every problem.
    """
    env = dict(os.environ if environ is None else environ)
    problems: list[Problem] = []
    values: dict[str, Any] = _defaults(env)
    sources = dict.fromkeys(values, "default")

    def take(name: str, raw: object, source: str, file: str | None, line: int | None) -> None:
        try:
            values[name], sources[name] = _READ[name](raw), source
        except ValueError as error:
            field = _spelled(name) if file else source.rpartition(" ")[2]
            text = f"`{_spelled(name)}` cannot be this"
            problems.append(Problem(text, file, line, field, repr(raw), str(error)))

    def take_file(path: Path, *, in_data: bool) -> None:
        for name, raw, line in _read_file(path, problems, in_data=in_data):
            take(name, raw, f"{path}:{line}", str(path), line)

    def take_rest(names: tuple[str, ...]) -> None:
        for name in names:
            if text := env.get(f"GRAMPUS_{name.upper()}"):
                take(name, text, f"environment GRAMPUS_{name.upper()}", None, None)
            raw = flags.get(name) if flags else None
            if raw is not None:
                take(name, raw, f"option --{name.replace('_', '-')}", None, None)

    base = env.get("XDG_CONFIG_HOME") or _home(env) / ".config"
    take_file(Path(base) / "grampus" / FILE, in_data=False)
    # The data folder first: its file may give the others.
    take_rest(("data",))
    take_file(values["data"] / FILE, in_data=True)
    take_rest(tuple(name for name in _READ if name != "data"))
    if problems:
        raise InvalidInput(problems)
    return Config(**values, sources=sources)


def explain(config: Config) -> list[Row]:
    """Every setting with its value and where it came from."""
    rows = []
    for name in _READ:
        value = getattr(config, name)
        if name in ("retention", "kill_grace"):
            value = _spell(value)
        elif isinstance(value, Path | Listen):
            value = str(value)
        elif isinstance(value, tuple):
            value = [str(each) for each in value]
        rows.append(Row(_spelled(name), value, config.sources[name]))
    return rows


def _spelled(name: str) -> str:
    """As in the file, where `cluster` is a table."""
    return name.replace("cluster_", "cluster.")


def _home(env: Mapping[str, str]) -> Path:
    return Path(env.get("HOME") or os.path.expanduser("~"))


def _defaults(env: Mapping[str, str]) -> dict[str, Any]:
    home = _home(env)
    node = re.sub(r"[^A-Za-z0-9_.-]", "-", os.uname().nodename).lstrip("-._")[:63]
    return {
        "data": Path(env.get("XDG_DATA_HOME") or home / ".local/share") / "grampus",
        "state": Path(env.get("XDG_STATE_HOME") or home / ".local/state") / "grampus",
        "listen": Listen("127.0.0.1", 8470),
        "name": node or "node",
        "group": "default",
        "slots": len(os.sched_getaffinity(0)),
        "warm": True,
        "retention": 30 * _UNITS["d"],
        "kill_grace": 10 * _UNITS["s"],
        "cluster_servers": (),
        "server": (),
        "token_file": None,
        "ca": None,
    }


def _read_file(
    path: Path, problems: list[Problem], *, in_data: bool
) -> list[tuple[str, object, int]]:
    """(name, value, line) of the known keys; what is wrong goes to `problems`."""
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column \d+\)", str(error))
        message = re.sub(r" \(at .*\)$", "", str(error))
        problems.append(Problem(f"no TOML: {message}", str(path), int(place[1]) if place else None))
        return []
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(f"cannot be read: {error}", str(path)))
        return []
    found = []
    if isinstance(cluster := table.get("cluster"), dict):
        del table["cluster"]
        # In the file it has a table of its own.
        table |= {f"cluster_{key}": value for key, value in cluster.items()}
    for key, value in table.items():
        line = _line_of(_spelled(key), text) or _line_of(key.removeprefix("cluster_"), text) or 1
        if key not in _READ:
            near = difflib.get_close_matches(key, _READ, 1)
            hint = f"; did you mean `{_spelled(near[0])}`?" if near else ""
            allowed = None if near else ", ".join(map(_spelled, _READ))
            message = f"there is no setting `{_spelled(key)}`{hint}"
            problems.append(Problem(message, str(path), line, allowed=allowed))
        elif in_data and key == "data":
            message = "`data` cannot be set in the data folder itself"
            problems.append(Problem(message, str(path), line, key))
        else:
            found.append((key, value, line))
    return found


def _line_of(key: str, text: str) -> int | None:
    spelled = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    return next((n for n, line in enumerate(text.splitlines(), 1) if spelled.match(line)), None)


def _spell(ms: int) -> str:
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, ms = divmod(ms, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
