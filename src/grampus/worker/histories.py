"""The history of the cluster that a worker has seen last, in a file of its data folder.

Rule: written down, durably, before the worker says a word to a server of that history. So a worker
that was started anew still does not go back to servers that the cluster has left (`Histories`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from grampus import secret_file
from grampus.cluster.core.histories import Histories, Remembered
from grampus.errors import FolderError

#: In the data folder.
FILE = "histories"


def histories_of(folder: Path) -> Histories:
    """Raises FolderError when the file is damaged."""
    path = folder / FILE
    remembered = None
    if path.exists():
        try:
            remembered = msgspec.json.decode(secret_file.read(path), type=Remembered)
        except msgspec.MsgspecError as error:
            raise FolderError(
                f"{path} is damaged ({error}): remove it when no server of this cluster runs that"
                " was left behind by a recovery; the worker goes with the first one that it meets"
            ) from None
    return Histories(remembered, partial(_keep, path))


def _keep(path: Path, remembered: Remembered) -> None:
    secret_file.write(path, msgspec.json.encode(remembered) + b"\n")
