"""TLS of the connections between nodes: who may be trusted, and who the other side is.

Rules. TLS 1.3 and nothing older, no resumed sessions: each connection proves anew who it is. Both
sides trust the authority of their cluster alone. A server shows a certificate always, and asks for
one; a caller without is a stranger who may join and nothing else, which is for `greet` to enforce.
A caller says nothing before he knows that the other side is a server of his cluster: a server is
known by the role in its certificate, not by a host name, for any server will do.
"""

from __future__ import annotations

import ssl

from grampus.errors import FolderError, Refused
from grampus.rpc.certificates import BadCertificate, subject_of
from grampus.rpc.subject import SERVER, Subject
from grampus.rpc.tls_folder import TlsFolder


class Untrusted(Refused):
    """The other side is not who may be talked to here."""


class Tls:
    """What `Server` and `connect` need to encrypt, and to know whom they talk to."""

    def __init__(self, client: ssl.SSLContext, server: ssl.SSLContext | None, cluster: str) -> None:
        self.client = client
        self.server = server
        #: Certificates of other clusters count for nothing; "" as long as it is not known.
        self._cluster = cluster

    def caller(self, session: ssl.SSLObject) -> Subject | None:
        """Who has connected to this server; None for one without a certificate.

        Raises Untrusted."""
        certificate = session.getpeercert(binary_form=True)
        return None if certificate is None else self._read(certificate)

    def callee(self, session: ssl.SSLObject) -> Subject | None:
        """Which server has answered. Raises Untrusted when it is none of this cluster.

        None when it was not verified: then nothing may be said that is secret."""
        if self.client.verify_mode is ssl.CERT_NONE:
            return None
        certificate = session.getpeercert(binary_form=True)
        if certificate is None:
            raise Untrusted("it has shown no certificate")
        subject = self._read(certificate)
        if subject.role != SERVER:
            raise Untrusted(f"it is {subject}, not a server")
        return subject

    def _read(self, certificate: bytes) -> Subject:
        try:
            subject = subject_of(certificate)
        except BadCertificate as error:
            raise Untrusted(str(error)) from error
        if self._cluster and subject.cluster != self._cluster:
            raise Untrusted(f"it is {subject}, and this is cluster {self._cluster}")
        return subject


class NodeTls(Tls):
    """TLS of a node that has its certificate in DIR/tls."""

    def __init__(self, folder: TlsFolder) -> None:
        """Raises FolderError when what is there cannot be used."""
        folder.check()
        self.folder = folder
        self.subject = folder.subject()
        client = _context(ssl.PROTOCOL_TLS_CLIENT, folder.authority_certificate())
        server = _context(ssl.PROTOCOL_TLS_SERVER, folder.authority_certificate())
        # A worker's certificate would be refused by whoever calls.
        serves = self.subject.role == SERVER
        super().__init__(client, server if serves else None, self.subject.cluster)
        self.reload()

    def reload(self) -> None:
        """Shows the certificate that is in the folder now, on connections made from now on."""
        for context in (self.client, self.server):
            if context is not None:
                _load_chain(context, self.folder)


def pinned_tls(authority: bytes) -> Tls:
    """For one who has no certificate yet and has learned whom to trust: `authority` as PEM."""
    return Tls(_context(ssl.PROTOCOL_TLS_CLIENT, authority), None, "")


def unverified_tls() -> Tls:
    """For one who does not even know whom to trust: good for asking for the authority only."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, None)
    context.verify_mode = ssl.CERT_NONE
    return Tls(context, None, "")


class Https:
    """TLS of the API: users show a token, not a certificate."""

    def __init__(self, folder: TlsFolder) -> None:
        """Raises FolderError."""
        folder.check()
        self._folder = folder
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.reload()

    def reload(self) -> None:
        """Shows the certificate that is in the folder now, on connections made from now on."""
        _load_chain(self.context, self._folder)


def _load_chain(context: ssl.SSLContext, folder: TlsFolder) -> None:
    """Raises FolderError."""
    try:
        context.load_cert_chain(folder.certificate, folder.key)
    except OSError as error:
        raise FolderError(f"the certificate in {folder.path} cannot be used: {error}") from error


def _context(protocol: int, authority: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    if protocol == ssl.PROTOCOL_TLS_CLIENT:
        context.check_hostname = False
    else:
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_OPTIONAL
    if authority is not None:
        context.load_verify_locations(cadata=authority.decode("ascii"))
    return context
