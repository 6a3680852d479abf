"""DIR: the data folder of a node, its identity (DIR/node.toml) and its lock (DIR/lock).

Rules: one process at a time; one folder is one node, so a copy is not a node; a folder is founded
once, and whoever finds a folder that is neither empty nor ours leaves it as it is.
"""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from grampus.consensus.generation import Generation
from grampus.consensus.log import DurableLog
from grampus.errors import FolderCopied, FolderError

#: Raised when an older Grampus could misread the folder.
FORMAT_VERSION = 1
#: Random bytes that `open` takes for a folder's ids.
ENTROPY = 30
_LOG = "log"
SERVER_PARTS = ("ledger", _LOG, "blobs", "worker")
WORKER_PARTS = ("blobs", "worker")
#: FS_IOC_GETVERSION of a 64-bit Linux.
_GET_GENERATION = 0x80087601
_IDENTITY = "node.toml"
_LOCK = "lock"
#: What may be there before the folder is anybody's: of a founding that was killed, of the file
#: system, and the settings of the node that will be.
_HARMLESS = {_LOCK, _IDENTITY + ".new", _LOG + ".new", "lost+found", "grampus.toml"}


class Identity(Struct, frozen=True):
    """What DIR/node.toml says."""

    #: The cluster, and its history: a recovery or a restore begins a new history.
    cluster: str
    history: str
    node: str
    #: Machine id, and where on it the folder is; both empty until the first start.
    machine: str
    place: str

    def toml(self) -> str:
        return (
            "# The identity of this node, made by Grampus. A copy is not this node.\n"
            f"format = {FORMAT_VERSION}\n"
            f'cluster = "{self.cluster}"\nhistory = "{self.history}"\nnode = "{self.node}"\n'
            f'machine = "{self.machine}"\nplace = "{self.place}"\n'
        )


class DataFolder:
    """A folder that this process holds, from `open` to `close`."""

    def __init__(self, path: Path, identity: Identity, founded: bool, lock: int) -> None:
        self.path = path
        self.identity = identity
        #: Whether `open` made the identity.
        self.founded = founded
        self._lock: int | None = lock

    @classmethod
    def open(
        cls, path: Path, *, machine: str, entropy: bytes, parts: Sequence[str] = SERVER_PARTS
    ) -> DataFolder:
        """Takes the folder, and founds it when it is new or empty. Raises FolderError.

        `machine` is the machine id; `entropy` at least `ENTROPY` random bytes, for founding;
        `parts` are the folders in it."""
        if len(entropy) < ENTROPY:
            raise ValueError(f"{ENTROPY} bytes of entropy are needed, not {len(entropy)}")
        path = Path(os.path.abspath(path))
        try:
            _make(path)
            _refuse_foreign(path)
            lock = _lock(path)
            try:
                founded = not (path / _IDENTITY).exists()
                if founded:
                    os.chmod(path, 0o700)
                    found = Identity(*_ids(entropy), machine="", place="")
                    if _LOG in parts:
                        _begin_log(path)
                else:
                    found = _read(path / _IDENTITY)
                identity = _settle(path, found, machine)
                if _LOG in parts:
                    _check_log(path)
                for name in parts:
                    (path / name).mkdir(mode=0o700, exist_ok=True)
                _sync(path)
            except BaseException:
                os.close(lock)
                raise
        except OSError as error:
            raise FolderError(
                f"the data folder {path} cannot be used: {error.strerror or error}"
                f" ({error.filename or path})"
            ) from error
        return cls(path, identity, founded, lock)

    def __enter__(self) -> DataFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def cluster(self) -> str:
        return self.identity.cluster

    @property
    def log(self) -> Path:
        return self.path / _LOG

    @property
    def ledger(self) -> Path:
        return self.path / "ledger"

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def worker(self) -> Path:
        return self.path / "worker"

    def adopt(self, cluster: str, history: str) -> None:
        """From now on the folder belongs to that cluster: durable when this returns."""
        old = self.identity
        aside = self.path / (_IDENTITY + ".new")
        self.identity = _bind(aside, Identity(cluster, history, old.node, old.machine, ""))
        os.rename(aside, self.path / _IDENTITY)
        _sync(self.path)

    def close(self) -> None:
        """Lets another process take it. Safe to call again."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _make(path: Path) -> None:
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in missing:
        _sync(made.parent)


def _refuse_foreign(path: Path) -> None:
    names = {entry.name for entry in os.scandir(path)}
    if _IDENTITY not in names and names - _HARMLESS:
        raise FolderError(
            f"{path} is not a data folder and not empty (it holds"
            f" {sorted(names - _HARMLESS)[0]}): choose another folder"
        )


def _begin_log(path: Path) -> None:
    """An empty log, aside, before there is an identity: a folder without a log has lost it."""
    aside = path / (_LOG + ".new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    DurableLog.open(aside).close()
    _sync(path)


def _check_log(path: Path) -> None:
    """A voter that forgot its votes would vote again: a log never begins anew by itself."""
    aside = path / (_LOG + ".new")
    if aside.exists():  # it was founded just now, or a crash came between
        os.rename(aside, path / _LOG)
    if not Generation.current(path).has_log:
        raise FolderError(
            f"the log in {path / _LOG} is gone: nothing was changed; restore this node's folder as"
            " a whole from a backup, or replace the node"
        )


def _lock(path: Path) -> int:
    """A descriptor that holds the lock; it is free when the last process that has it ends."""
    fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise FolderError(f"the data folder {path} is in use by process {pid}") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _ids(entropy: bytes) -> tuple[str, str, str]:
    texts = [base64.b32encode(entropy[at : at + 10]).decode().lower() for at in (0, 10, 20)]
    return texts[0], texts[1], texts[2]


def _read(path: Path) -> Identity:
    try:
        fields = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FolderError(f"{path} is damaged ({error}): restore it from a backup") from error
    version = fields.get("format")
    if not isinstance(version, int):
        raise FolderError(f"{path} is damaged (it has no format): restore it from a backup")
    if version > FORMAT_VERSION:
        raise FolderError(
            f"the data folder {path.parent} has format {version}, this Grampus knows"
            f" {FORMAT_VERSION}: use the newer Grampus that wrote it"
        )
    values = [fields.get(name, "") for name in Identity.__struct_fields__]
    if not all(isinstance(value, str) for value in values) or not all(values[:3]):
        raise FolderError(f"{path} is damaged (an id is missing): restore it from a backup")
    return Identity(*values)


def _settle(path: Path, identity: Identity, machine: str) -> Identity:
    """Binds an unbound identity to this folder, or refuses one that is bound to another."""
    file = path / _IDENTITY
    if identity.machine or identity.place:
        if identity.place == _place(path, file) and identity.machine == machine:
            return identity
        where = "on this machine" if identity.machine == machine else "from another machine"
        raise FolderCopied(
            f"{path} is a copy {where} of a node's folder, and two copies must not both run: use"
            " the original, or, if that one will never run again, remove the lines `machine` and"
            f" `place` from {file} and start again"
        )
    aside = path / (_IDENTITY + ".new")
    unbound = Identity(identity.cluster, identity.history, identity.node, machine, "")
    bound = _bind(aside, unbound)
    os.rename(aside, file)
    return bound


def _bind(aside: Path, identity: Identity) -> Identity:
    """Writes the identity to a file that is renamed later, with its own place in it: a file keeps
    its inode when it is renamed."""
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        place = _place(aside.parent, aside)
        bound = Identity(identity.cluster, identity.history, identity.node, identity.machine, place)
        os.write(fd, bound.toml().encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    return bound


def _place(folder: Path, file: Path) -> str:
    """Changes when the folder is copied, not when it is moved or the machine starts again.

    Inode numbers, for the number of a device may differ from boot to boot; and the generation of
    each inode, where the file system has one: the number of a deleted file is used again."""
    return f"{_inode(folder)}-{_inode(file)}"


def _inode(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        number = os.fstat(fd).st_ino
        generation = bytearray(8)
        try:
            fcntl.ioctl(fd, _GET_GENERATION, generation)
        except OSError:
            return str(number)
        return f"{number}.{int.from_bytes(generation[:4], sys.byteorder)}"
    finally:
        os.close(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
