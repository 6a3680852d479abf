"""DIR/credentials.toml: what a node shows to the others where there is no TLS.

Rule: servers and workers hold different ones. All servers of a cluster share one secret; each
worker has its own, of which the ledger keeps a hash; users have tokens of the API and nothing of
these. With TLS certificates take their place, and the file is not there.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from msgspec import Struct

from grampus import secret_file
from grampus.errors import FolderError

FILE = "credentials.toml"


class Credentials(Struct, frozen=True):
    """Empty where the node has none of that kind."""

    server: str = ""
    worker: str = ""

    def __repr__(self) -> str:
        return "Credentials()"


def read_credentials(data: Path) -> Credentials:
    """Of the node in the folder `data`; empty ones when it has none. Raises FolderError."""
    path = data / FILE
    if not path.exists():
        return Credentials()
    try:
        table = tomllib.loads(secret_file.read(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FolderError(f"{path} is damaged: restore it from a backup") from error
    values = [table.get(name, "") for name in Credentials.__struct_fields__]
    if not all(isinstance(v, str) and (not v or v.isalnum()) for v in values):
        raise FolderError(f"{path} is damaged: restore it from a backup")
    return Credentials(*values)


def write_credentials(data: Path, credentials: Credentials) -> None:
    """Durably, 0600. Raises FolderError."""
    lines = ["# What this node shows to others of its cluster. Made by Grampus; keep it secret."]
    shown = [(name, getattr(credentials, name)) for name in Credentials.__struct_fields__]
    lines += [f'{name} = "{value}"' for name, value in shown if value]
    secret_file.write(data / FILE, "\n".join([*lines, ""]).encode())
