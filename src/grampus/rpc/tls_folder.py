"""DIR/tls: the authority's certificate, and the key and the certificate of this node.

    ca.pem         the authority of the cluster; all that others need to trust its servers
    ca-key.pem     its key, on servers only
    node-key.pem   the key of this node, made once
    node.pem       its certificate, with the authority's behind it

Rules: each file is written aside, synced and renamed, so that a crash leaves the old one or the new
one; and since a node keeps its key, node.pem alone is what a renewal replaces, once the new one has
proved good. Of what others send, only what was looked at is written. All but ca.pem are readable by
their owner only; a key that others can read is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grampus import secret_file
from grampus.errors import FolderError
from grampus.rpc.certificates import (
    Authority,
    BadCertificate,
    authority_hash,
    certificate_request,
    check_issued,
    check_usable,
    found_authority,
    key_hash,
    life,
    new_key,
    only_first,
    read_request,
    renewal_due,
    request_key,
    subject_of_pem,
)
from grampus.rpc.subject import SERVER, Subject

_CA, _CA_KEY, _NODE, _NODE_KEY = "ca.pem", "ca-key.pem", "node.pem", "node-key.pem"


class TlsFolder:
    """DIR/tls of one node. Every method may raise FolderError."""

    def __init__(self, data: Path) -> None:
        self.path = data / "tls"

    @property
    def ca(self) -> Path:
        return self.path / _CA

    @property
    def certificate(self) -> Path:
        return self.path / _NODE

    @property
    def key(self) -> Path:
        return self.path / _NODE_KEY

    @property
    def ready(self) -> bool:
        """Whether the node has a certificate."""
        return self.certificate.exists()

    def found(self, cluster: str, name: str, hosts: Sequence[str], now: int) -> None:
        """Makes the authority, where there is none, and this first server's certificate."""
        if not self.ca.exists():
            certificate, key = found_authority(cluster, now)
            self._write(_CA_KEY, key)
            # The authority is there once its certificate is.
            self._write(_CA, certificate, 0o644)
        self.issue_own(cluster, name, hosts, now)

    def issue_own(self, cluster: str, name: str, hosts: Sequence[str], now: int) -> None:
        """A new certificate of this server, by the authority that it holds itself."""
        made = self.authority().issue(self.request(), cluster, SERVER, name, hosts, now)
        self._write(_NODE, made)

    def install(
        self, certificate: bytes, ca: bytes, expected: Subject, ca_key: bytes = b""
    ) -> None:
        """What a server has issued for `request()`. Nothing is written unless all of it fits."""
        try:
            ca = only_first(ca)
            certificate = self._fitting(certificate, ca, expected)
            if ca_key:
                Authority(ca, ca_key)
            if self.ca.exists() and authority_hash(self._read(_CA)) != authority_hash(ca):
                raise BadCertificate("it comes from another authority than the folder's")
        except BadCertificate as error:
            raise _unusable(error) from error
        if ca_key:
            self._write(_CA_KEY, ca_key)
        self._write(_CA, ca, 0o644)
        self._write(_NODE, certificate + ca)

    def renew(self, certificate: bytes, now: int) -> None:
        """Replaces the certificate by a newer one for the same subject. Nothing is written unless
        it holds now, and for as long as the old one."""
        old = self.subject()
        try:
            ca = only_first(self._read(_CA))
            certificate = self._fitting(certificate, ca, old)
            check_usable(certificate, old.role, now)
            if life(certificate)[1] < self.ends():
                raise BadCertificate(
                    "it ends before the one in use: is the clock right of whoever has issued it?"
                )
        except BadCertificate as error:
            raise _unusable(error) from error
        self._write(_NODE, certificate + ca)

    def _fitting(self, certificate: bytes, ca: bytes, expected: Subject) -> bytes:
        """The first certificate in a PEM, if the authority has issued it for the subject and the
        key of this node. Raises BadCertificate."""
        check_issued(certificate, ca)
        subject = subject_of_pem(certificate)
        if subject != expected or subject.key != request_key(self.request()):
            raise BadCertificate(f"it is for {subject}, not for {expected} and its key")
        return only_first(certificate)

    def request(self) -> bytes:
        """Asks for a certificate for the node's key, which is made if there is none."""
        if not self.key.exists():
            self._write(_NODE_KEY, new_key())
        try:
            return certificate_request(self._read(_NODE_KEY))
        except BadCertificate as error:
            raise FolderError(f"{self.key} is damaged: {error}") from error

    def authority(self) -> Authority:
        """To issue certificates with; on servers only."""
        try:
            return Authority(self._read(_CA), self._read(_CA_KEY))
        except BadCertificate as error:
            raise FolderError(
                f"{self.path} cannot issue certificates: {error}; copy {_CA} and {_CA_KEY} from"
                " another server of the cluster"
            ) from error

    @property
    def has_authority(self) -> bool:
        return (self.path / _CA_KEY).exists()

    def authority_certificate(self) -> bytes:
        return self._read(_CA)

    def authority_key(self) -> bytes:
        """For another server that joins."""
        return self._read(_CA_KEY)

    def subject(self) -> Subject:
        """Whom the node's certificate is for."""
        return subject_of_pem(self._own())

    def ends(self) -> int:
        """When the node's certificate ends, in wall milliseconds."""
        return life(self._own())[1]

    def renewal_due(self) -> int:
        """From when on a new certificate should be asked for, in wall milliseconds."""
        return renewal_due(self._own())

    def _own(self) -> bytes:
        """The node's certificate, which is one."""
        certificate = self._read(_NODE)
        try:
            subject_of_pem(certificate)
        except BadCertificate as error:
            raise FolderError(
                f"{self.certificate} is damaged: {error}; restore it, or let the node join anew"
            ) from error
        return certificate

    def check(self) -> None:
        """That all that a connection needs is there, fits together, and is for nobody else."""
        subject = self.subject()
        if subject.key != key_hash(read_request(self.request())):
            raise FolderError(f"{self.certificate} is not for the key in {self.key}")
        authority_hash(self._read(_CA))

    def _read(self, name: str) -> bytes:
        return secret_file.read(self.path / name, public=name == _CA)

    def _write(self, name: str, content: bytes, mode: int = 0o600) -> None:
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise FolderError(f"{self.path} cannot be made: {error.strerror}") from error
        secret_file.write(self.path / name, content, mode)


def _unusable(error: BadCertificate) -> FolderError:
    return FolderError(f"the certificate that was issued cannot be used: {error}")
