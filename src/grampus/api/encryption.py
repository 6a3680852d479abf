"""TLS of an API that other machines can reach, where the node is its own authority.

Rule: the certificate is made anew at each start, for the names and addresses that the machine has
then, and renewed while the node runs. Users trust DIR/tls/ca.pem, which stays the same. A node of
one machine founds that authority itself; one that has joined a cluster got it there.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from grampus.clock import Clock
from grampus.cluster.renewing import by_own_authority
from grampus.rpc.address import names_of
from grampus.rpc.renewal import Renewal
from grampus.rpc.tls import Https
from grampus.rpc.tls_folder import TlsFolder


class Encryption:
    def __init__(self, data: Path, cluster: str, name: str, host: str, clock: Clock) -> None:
        """`host` is what the API listens at. Raises FolderError."""
        folder = TlsFolder(data)
        folder.found(cluster, name, names_of(host), clock.now())
        https = Https(folder)
        issue = by_own_authority(folder, names_of(host), clock)
        self._renewal = Renewal(folder, issue, https.reload, clock)
        #: For clients of this user.
        self.ca: Path = folder.ca
        self.context: ssl.SSLContext = https.context

    async def run(self) -> None:
        """Until cancelled."""
        await self._renewal.run()
