"""Nodes of a cluster as their DIR/tls: an authority, and certificates good and bad."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grampus.clock import SystemClock
from grampus.rpc.certificates import request_key
from grampus.rpc.subject import Subject
from grampus.rpc.tls_folder import TlsFolder

CLUSTER = "cluster-a"
DAY = 86_400_000


def now() -> int:
    return SystemClock().now()


@dataclass
class Nodes:
    """The folders of one cluster's nodes, below `path`."""

    path: Path
    cluster: str = CLUSTER

    def server(self, name: str = "s1") -> TlsFolder:
        """The first one founds; the others get their certificates from it."""
        folder = self.folder(name)
        if name == "s1":
            folder.found(self.cluster, name, [], now())
            return folder
        return self.issue(name, "server")

    def worker(self, name: str = "w1") -> TlsFolder:
        return self.issue(name, "worker")

    def issue(
        self, name: str, role: str, cluster: str | None = None, at: int | None = None
    ) -> TlsFolder:
        """A folder with a certificate that s1's authority issues, whatever it says, at any time."""
        authority = self.folder("s1").authority()
        folder = self.folder(name)
        request = folder.request()
        cluster = cluster or self.cluster
        made = authority.issue(request, cluster, role, name, [], now() if at is None else at)
        folder.install(made, authority.pem, Subject(cluster, role, name, request_key(request)))
        return folder

    def folder(self, name: str) -> TlsFolder:
        data = self.path / name
        data.mkdir(exist_ok=True, parents=True)
        return TlsFolder(data)
