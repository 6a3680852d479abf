"""The files that travel with a workflow, as one zip whose bytes depend on nothing but them.

Rule: names sorted, times fixed, nothing compressed: the same files give the same hash on every
machine. No file from outside the folder gets in, through a link neither.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from grampus.errors import Problem
from grampus.sdk.trace import shown

BUNDLE_LIMIT = 16 * 1024 * 1024
FILES_LIMIT = 10_000
SKIPPED = frozenset({"__pycache__", "venv", "node_modules"})
_TIME = (1980, 1, 1, 0, 0, 0)
_ADVICE = "leave out what workers can fetch themselves; `include` names what is needed"


def walk(folder: Path) -> Iterator[Path]:
    """All files below `folder`, but hidden ones, compiled ones and environments. Sorted."""
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in SKIPPED
            and not Path(base, name, "pyvenv.cfg").exists()
        )
        for name in sorted(files):
            if not name.startswith(".") and not name.endswith((".pyc", ".pyo")):
                yield Path(base, name)


def pack(folder: Path, files: Iterable[Path], source: Path) -> tuple[bytes | None, list[Problem]]:
    """The zip of `files`, named relative to `folder`; None when there are none or problems."""
    chosen: dict[str, Path] = {}
    problems: list[Problem] = []
    root, at = folder.resolve(), shown(str(source))
    for path in files:
        name = os.path.relpath(os.path.abspath(path), folder)
        if name in chosen:
            continue
        if name.startswith("..") or not path.resolve().is_relative_to(root):
            text = f"{name} is outside of the folder {folder}: only files below it can travel"
            problems.append(Problem(text, at))
        elif path.is_file():
            if not _is_utf8(name):
                text = f"the name {name.encode(errors='backslashreplace').decode()} is not UTF-8"
                problems.append(Problem(text, at))
            chosen[name] = path
    if len(chosen) > FILES_LIMIT:
        text = f"the bundle has {len(chosen)} files: {_ADVICE}"
        problems.append(Problem(text, at, allowed=f"{FILES_LIMIT} files"))
    if problems or not chosen:
        return None, problems
    problems += _check_size(chosen, at)
    if problems:
        return None, problems
    try:
        data = _zip(chosen)
    except OSError as error:
        text = f"{error.filename} cannot be read: {error.strerror}"
        return None, [Problem(text, at)]
    if len(data) > BUNDLE_LIMIT:
        return None, [Problem(f"the bundle is too large: {_ADVICE}", at)]
    return data, []


def _is_utf8(name: str) -> bool:
    """Whether a file's name is text; Python reads other bytes as surrogates."""
    return not any("\udc80" <= character <= "\udcff" for character in name)


def _check_size(chosen: dict[str, Path], at: str) -> list[Problem]:
    sizes = {name: path.stat().st_size for name, path in chosen.items()}
    total = sum(sizes.values())
    if total <= BUNDLE_LIMIT:
        return []
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:3]
    listed = ", ".join(f"{name} ({sizes[name] / 1024**2:.1f} MiB)" for name in largest)
    text = f"the bundle is too large: {_ADVICE}. The largest files: {listed}"
    found = f"{total / 1024**2:.1f} MiB"
    return [Problem(text, at, None, "include", found, f"{BUNDLE_LIMIT // 1024**2} MiB")]


def _zip(chosen: dict[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(chosen):
            entry = zipfile.ZipInfo(Path(name).as_posix(), _TIME)
            entry.create_system = 3
            executable = chosen[name].stat().st_mode & stat.S_IXUSR
            entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            archive.writestr(entry, chosen[name].read_bytes())
    return buffer.getvalue()
