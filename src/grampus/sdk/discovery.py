"""Where the node of this user is, and the token it wants.

Rule: a node writes `<state>/nodes/<port>.json` (0600, in a 0700 folder) when it is ready and takes
it away when it stops. A token goes only to the address it was published for, and only while the
process that published it is there: nobody else on that port gets it. No token goes over a network
in the clear. Tokens are never logged.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from grampus.config import DEFAULT_SERVER, Listen
from grampus.errors import FolderError, UsageError
from grampus.loopback import is_own

TOKEN_LIMIT = 4096
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}


class NodeFile(Struct, frozen=True):
    """What a node says of itself to its user's other processes."""

    url: str
    token: str
    pid: int
    #: File with the authority of its certificate, where it has one.
    ca: str = ""
    #: When its process began, in clock ticks after the boot: another one may get its number.
    born: int = 0

    def __repr__(self) -> str:
        return f"NodeFile(url={self.url!r}, pid={self.pid})"


class Address(Struct, frozen=True):
    """A server to try."""

    url: str
    token: str | None
    #: File with the authority that its certificate must be of; None is the system's.
    ca: Path | None = None

    def __repr__(self) -> str:
        return f"Address(url={self.url!r})"


def publish(state: Path, url: str, token: str, pid: int, ca: Path | None = None) -> Path:
    """Makes the node at `url` known; replaces what an earlier node of that port left.

    Raises FolderError."""
    try:
        node = NodeFile(canonical(url), token, pid, str(ca or ""), _born(pid))
        return _publish(state, node, _port(url))
    except OSError as error:
        raise FolderError(
            f"the state folder {state} cannot be used: {error.strerror} ({error.filename}): "
            "choose another with GRAMPUS_STATE"
        ) from error


def _publish(state: Path, node: NodeFile, port: int) -> Path:
    folder = state / "nodes"
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    path = folder / f"{port}.json"
    fresh = folder / f".{path.name}.{node.pid}"
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(node))
    fresh.replace(path)
    return path


def withdraw(state: Path, url: str, pid: int) -> None:
    """Takes the file away if it is still that of process `pid`."""
    path = state / "nodes" / f"{_port(url)}.json"
    node = _read(path)
    if node is not None and node.pid == pid:
        path.unlink(missing_ok=True)


def find(
    state: Path,
    servers: Sequence[str] = (),
    token: str | None = None,
    token_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    ca: Path | None = None,
    cluster: Sequence[Listen] = (),
) -> tuple[Address, ...]:
    """The addresses to try, in order, each with the token to show (None when there is none).

    Without `servers`: those of the `cluster`. Without both: the servers of the only cluster that
    runs here, else the node at the default address.
    Raises UsageError for a bad token file, when several nodes run and none was chosen, or when a
    token would go over a network in the clear.
    """
    env = os.environ if environ is None else environ
    given = token or None
    if given is None:
        given = read_token(token_file) if token_file else env.get("GRAMPUS_TOKEN") or None
    if given is not None and not (given.isascii() and given.isprintable()):
        raise UsageError("a token is printable ASCII: this one is broken")
    published = nodes(state)
    if not servers and cluster:
        servers = [_url(at, published) for at in cluster]
    elif not servers:
        servers = _choose(published)
    known = {node.url: node for node in published}
    return tuple(_address(url, given, ca, known.get(canonical(url))) for url in servers)


def _url(at: Listen, published: list[NodeFile]) -> str:
    """As a node of this machine says it; elsewhere a server of a cluster has TLS."""
    for scheme in ("http", "https"):
        if any(node.url == canonical(f"{scheme}://{at}") for node in published):
            return f"{scheme}://{at}"
    return f"http://{at}" if is_own(at.host) else f"https://{at}"


def _address(url: str, token: str | None, ca: Path | None, node: NodeFile | None) -> Address:
    if node is not None:
        return Address(url, token or node.token, ca or (Path(node.ca) if node.ca else None))
    host = urlsplit(canonical(url)).hostname or ""
    if token is not None and url.startswith("http:") and not is_own(host):
        raise UsageError(
            f"over {url} the token would be sent in the clear: write https://, or use ssh -L and"
            " 127.0.0.1"
        )
    return Address(url, token, ca)


def nodes(state: Path) -> list[NodeFile]:
    """Nodes of this user whose process is there, by port."""
    files = sorted((state / "nodes").glob("*.json"))
    return [n for n in map(_read, files) if n is not None and _alive(n)]


def read_token(path: Path) -> str:
    """The first line of a file. Raises UsageError."""
    try:
        with path.open(encoding="utf-8") as file:
            token = file.readline(TOKEN_LIMIT).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"the token file {path} cannot be read: {why}") from error
    if not token or not token.isascii() or not token.isprintable():
        raise UsageError(f"the token file {path} holds no token: one line of printable ASCII")
    return token


def canonical(url: str) -> str:
    """`url` in the one spelling that is compared: scheme://host:port."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = _ANY.get(host, host)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{_port(url)}"


def _choose(published: list[NodeFile]) -> list[str]:
    urls = [node.url for node in published]
    if len({node.token for node in published}) == 1:
        return urls  # one node, or servers of one cluster: they have the same token
    if not urls or DEFAULT_SERVER in urls:
        return [DEFAULT_SERVER]
    raise UsageError(f"several nodes run here, choose one with --server: {', '.join(urls)}")


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _read(path: Path) -> NodeFile | None:
    """None when it is not there, not ours or not whole: then it tells nothing."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                return None
            return msgspec.json.decode(file.read(TOKEN_LIMIT * 2), type=NodeFile)
    except (OSError, msgspec.DecodeError):
        return None


def _alive(node: NodeFile) -> bool:
    """Whether the very process of this user is there that published it."""
    try:
        os.kill(node.pid, 0)
    except (OSError, OverflowError):
        return False
    return node.pid > 0 and node.born in (0, _born(node.pid))


def _born(pid: int) -> int:
    """0 when it is over, also while nobody has taken note of that."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return 0 if fields[0] in ("Z", "X") else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0
