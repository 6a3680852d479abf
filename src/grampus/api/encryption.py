"""TLS of a server that other machines can reach: of its API, and of its connections to nodes.

Rule: its certificate is made anew at each start, for the names and addresses that the machine has
then, and renewed while it runs; so that one that was off for years starts. Users trust
DIR/tls/ca.pem, which stays the same. A first server founds that authority; the others, which hold
its key too, got it when they joined.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from grampus.clock import Clock
from grampus.cluster.renewing import by_own_authority
from grampus.rpc.address import names_of
from grampus.rpc.renewal import Renewal
from grampus.rpc.tls import Https, NodeTls
from grampus.rpc.tls_folder import TlsFolder


class Encryption:
    def __init__(self, data: Path, cluster: str, name: str, host: str, clock: Clock) -> None:
        """`host` is what the API listens at. Raises FolderError."""
        folder = TlsFolder(data)
        folder.found(cluster, name, names_of(host), clock.now())
        #: For connections with nodes. All of them use this one, so that all are renewed.
        self.nodes = NodeTls(folder)
        self._https = Https(folder)
        issue = by_own_authority(folder, names_of(host), clock)
        self._renewal = Renewal(folder, issue, self._reload, clock)
        #: For clients of this user.
        self.ca: Path = folder.ca
        #: For the API.
        self.context: ssl.SSLContext = self._https.context

    async def run(self) -> None:
        """Until cancelled."""
        await self._renewal.run()

    def _reload(self) -> None:
        self.nodes.reload()
        self._https.reload()
