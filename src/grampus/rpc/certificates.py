"""Keys and certificates as bytes: the authority of a cluster, and what it issues.

Rules. A cluster has one authority of its own, made at its founding, and trusts no other. A
certificate says which node of which cluster it is for (`Subject`); a worker's cannot be used to
serve. A node's key is made once, with its folder, and never leaves it: a renewal is a new
certificate for the same key. `now` is wall milliseconds; keys and signatures take their chance from
the library. Files are the affair of `tls_folder`, connections of `tls`.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from grampus.errors import InvalidInput, Problem
from grampus.rpc.subject import SERVER, Subject, read_subject

_DAY = 86_400_000
AUTHORITY_LIFE = 3650 * _DAY
NODE_LIFE = 365 * _DAY
#: A certificate counts from so long before its making: the clocks of two machines differ.
SKEW = 3_600_000
#: By these a node is called on its own machine.
OWN_HOSTS = ("localhost", "127.0.0.1", "::1")
#: A request for a certificate, and a list of hosts, are at most this long.
REQUEST_LIMIT = 4096
MOST_HOSTS = 32


class BadCertificate(InvalidInput):
    """Bytes that are no certificate, key or request, or not one that may be used here."""

    def __init__(self, what: str) -> None:
        super().__init__([Problem(what)])


class Authority:
    """The certificate authority of one cluster, with its key."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        """Both as PEM. Raises BadCertificate, also when they do not belong together."""
        self.pem = certificate
        self._certificate = _load(certificate)
        self._key = _load_key(key)
        if self._certificate.public_key() != self._key.public_key():
            raise BadCertificate("the authority's key is not that of its certificate")

    @property
    def hash(self) -> str:
        """What a join token carries of it."""
        return key_hash(self._certificate.public_key())

    def issue(
        self, request: bytes, cluster: str, role: str, name: str, hosts: Sequence[str], now: int
    ) -> bytes:
        """A certificate, as PEM with the authority's behind it, for the key of `request`.

        Of the request only the key counts, and that its bearer has it. `hosts` are the names and
        addresses by which a server is called. Raises BadCertificate."""
        public = read_request(request)
        subject = Subject(cluster, role, name, key_hash(public))
        if read_subject(subject.uri, subject.key) != subject:
            raise BadCertificate(f"there is no certificate for {subject}")
        serves = role == SERVER
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(subject.uri)]
        if serves:
            names += _host_names([*OWN_HOSTS, *hosts])
        end = min(_time(now + NODE_LIFE), self._certificate.not_valid_after_utc)
        if end <= _time(now):
            raise BadCertificate(f"the authority's own certificate ended on {end:%Y-%m-%d}")
        built = (
            _builder(f"{role} {name}", self._certificate.subject, public, now, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_uses(role)), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return built.public_bytes(Encoding.PEM) + self.pem


def found_authority(cluster: str, now: int) -> tuple[bytes, bytes]:
    """Certificate and key of a new authority, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"grampus {cluster}"[:64])])
    end = _time(now + AUTHORITY_LIFE)
    certificate = (
        _builder(f"grampus {cluster}", name, key.public_key(), now, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM), _key_pem(key)


def new_key() -> bytes:
    """The private key of a node, as PEM."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def certificate_request(key: bytes) -> bytes:
    """Asks for a certificate for this private key, as DER. Raises BadCertificate."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(_load_key(key), hashes.SHA256()).public_bytes(Encoding.DER)


def read_request(request: bytes) -> ec.EllipticCurvePublicKey:
    """The key that a certificate is asked for. Raises BadCertificate, also when the asker does not
    have the private one."""
    if len(request) > REQUEST_LIMIT:
        raise BadCertificate(f"a request for a certificate has at most {REQUEST_LIMIT} bytes")
    try:
        read = x509.load_der_x509_csr(request)
        key = read.public_key()
        valid = read.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise BadCertificate("these bytes are no request for a certificate") from None
    if not valid or not isinstance(key, ec.EllipticCurvePublicKey):
        raise BadCertificate("a request must be signed with the key it is for, of a P-256 curve")
    if not isinstance(key.curve, ec.SECP256R1):
        raise BadCertificate("a certificate is made for a key on the curve P-256 only")
    return key


def request_key(request: bytes) -> str:
    """`key_hash` of the key in a request. Raises BadCertificate."""
    return key_hash(read_request(request))


def authority_hash(certificate: bytes) -> str:
    """`key_hash` of the first certificate in a PEM. Raises BadCertificate."""
    return key_hash(_load(certificate).public_key())


def only_first(certificate: bytes) -> bytes:
    """The first certificate in a PEM alone: what else may stand there was not looked at.

    Raises BadCertificate."""
    return _load(certificate).public_bytes(Encoding.PEM)


def check_issued(certificate: bytes, authority: bytes) -> None:
    """That the authority has signed it. Raises BadCertificate."""
    try:
        _load(certificate).verify_directly_issued_by(_load(authority))
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise BadCertificate(
            "it is not signed by the cluster's authority: whoever has issued it has another one,"
            " so compare tls/ca.pem on all servers"
        ) from None


def check_usable(certificate: bytes, role: str, now: int) -> None:
    """That a node of that role can show it at this time. Raises BadCertificate."""
    start, end = life(certificate)
    if now < start:
        raise BadCertificate(
            f"it does not hold before {_time(start):%Y-%m-%d %H:%M} UTC: are the clocks of both"
            " machines right?"
        )
    if now >= end:
        raise BadCertificate(
            f"it has ended on {_time(end):%Y-%m-%d %H:%M} UTC: are the clocks of both machines"
            " right?"
        )
    try:
        uses = set(
            _load(certificate).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        )
    except (ValueError, x509.ExtensionNotFound):
        uses = set()
    if not uses.issuperset(_uses(role)):
        raise BadCertificate(f"it is not made for what a {role} does with it")


def key_hash(key: object) -> str:
    """SHA-256 of a public key (its SubjectPublicKeyInfo), in hexadecimal."""
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise BadCertificate("the key is of another kind than Grampus makes")
    return hashlib.sha256(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()


@lru_cache(maxsize=256)
def subject_of(certificate: bytes) -> Subject:
    """Whom a certificate (DER) is for. Whether it is to be trusted was decided before.

    Raises BadCertificate when it is for nobody of a cluster."""
    try:
        read = x509.load_der_x509_certificate(certificate)
        names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        key = key_hash(read.public_key())
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound):
        raise BadCertificate("the certificate is none of a Grampus cluster") from None
    subject = read_subject(uris[0], key) if len(uris) == 1 else None
    if subject is None:
        raise BadCertificate("the certificate does not say which node of a cluster it is for")
    return subject


def subject_of_pem(certificate: bytes) -> Subject:
    """As `subject_of`, for the first certificate in a PEM."""
    return subject_of(_load(certificate).public_bytes(Encoding.DER))


def life(certificate: bytes) -> tuple[int, int]:
    """From when until when the first certificate in a PEM holds. Raises BadCertificate."""
    read = _load(certificate)
    return _ms(read.not_valid_before_utc), _ms(read.not_valid_after_utc)


def renewal_due(certificate: bytes) -> int:
    """When two thirds of its life are over. Raises BadCertificate."""
    start, end = life(certificate)
    return start + (end - start) * 2 // 3


def _builder(
    name: str,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: int,
    end: datetime,
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now - SKEW))
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _uses(role: str) -> list[x509.ObjectIdentifier]:
    """What a certificate is for: a worker's cannot be used to serve."""
    calls = ExtendedKeyUsageOID.CLIENT_AUTH
    return [calls, ExtendedKeyUsageOID.SERVER_AUTH] if role == SERVER else [calls]


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Each once. Raises BadCertificate for what is neither an address nor a name."""
    hosts = list(dict.fromkeys(host.strip("[]").lower() for host in hosts))
    if len(hosts) > MOST_HOSTS:
        raise BadCertificate(f"a certificate names at most {MOST_HOSTS} hosts")
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host.partition("%")[0])))
        except ValueError:
            if not _is_host(host):
                raise BadCertificate(f"{host!r} is no host for a certificate") from None
            names.append(x509.DNSName(host))
    return names


def _is_host(text: str) -> bool:
    labels = text.split(".")
    return len(text) <= 253 and all(
        0 < len(label) <= 63 and label.isascii() and label.replace("-", "a").isalnum()
        for label in labels
    )


def _load(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise BadCertificate("these bytes are no certificate") from None


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadCertificate("these bytes are no private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadCertificate("the key is of another kind than Grampus makes")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)


def _ms(time: datetime) -> int:
    return int(time.timestamp()) * 1000
