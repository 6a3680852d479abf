"""The authority of a cluster, what it issues and what it refuses, and the files in DIR/tls."""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from grampus.errors import FolderError
from grampus.rpc import certificates
from grampus.rpc.certificates import (
    AUTHORITY_LIFE,
    NODE_LIFE,
    SKEW,
    Authority,
    BadCertificate,
    authority_hash,
    certificate_request,
    found_authority,
    life,
    new_key,
    renewal_due,
    request_key,
    subject_of,
    subject_of_pem,
)
from grampus.rpc.subject import Subject, read_subject
from grampus.rpc.tls_folder import TlsFolder

DAY = 86_400_000
NOW = 1_800_000_000_000


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(*found_authority("abc", NOW))


def issued(authority: Authority, role: str = "server", hosts: tuple[str, ...] = ()) -> bytes:
    return authority.issue(certificate_request(new_key()), "abc", role, "n1", hosts, NOW)


def read(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_a_certificate_says_who_it_is_for_and_by_which_names_it_is_called(
    authority: Authority,
) -> None:
    key = new_key()
    request = certificate_request(key)
    hosts = ("node-1.example.org", "192.0.2.7", "[2001:db8::7]", "localhost")
    pem = authority.issue(request, "abc", "server", "n1", hosts, NOW)
    assert subject_of_pem(pem) == Subject("abc", "server", "n1", request_key(request))
    names = read(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["grampus:abc/server/n1"]
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "node-1.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address(text) for text in ("127.0.0.1", "::1", "192.0.2.7", "2001:db8::7")
    ]


def test_a_workers_certificate_is_for_calling_only_and_names_no_host(authority: Authority) -> None:
    usage = x509.ExtendedKeyUsage
    server = read(issued(authority)).extensions.get_extension_for_class(usage).value
    assert set(server) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    worker = read(issued(authority, "worker", ("victim.example.org",)))
    assert list(worker.extensions.get_extension_for_class(usage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    names = worker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == []


def test_it_holds_from_a_little_before_now_for_a_year_and_is_renewed_after_two_thirds(
    authority: Authority,
) -> None:
    pem = issued(authority)
    start, end = life(pem)
    assert (start, end) == (NOW - SKEW, NOW + NODE_LIFE)
    assert renewal_due(pem) == start + (end - start) * 2 // 3
    assert life(authority.pem) == (NOW - SKEW, NOW + AUTHORITY_LIFE)


def test_no_certificate_outlives_its_authority(authority: Authority) -> None:
    late = NOW + AUTHORITY_LIFE - 10 * DAY
    request = certificate_request(new_key())
    assert life(authority.issue(request, "abc", "worker", "w", (), late))[1] == NOW + AUTHORITY_LIFE
    with pytest.raises(BadCertificate, match="authority's own certificate ended on"):
        authority.issue(request, "abc", "worker", "w", (), NOW + AUTHORITY_LIFE)


def test_a_node_is_no_authority_and_the_authority_makes_no_others(authority: Authority) -> None:
    def basic(pem: bytes) -> x509.BasicConstraints:
        return read(pem).extensions.get_extension_for_class(x509.BasicConstraints).value

    assert basic(issued(authority)).ca is False
    assert basic(authority.pem).ca is True
    assert basic(authority.pem).path_length == 0
    read(issued(authority)).verify_directly_issued_by(read(authority.pem))


def test_the_hash_of_the_authority_is_of_its_key_and_differs_between_clusters(
    authority: Authority,
) -> None:
    assert authority.hash == authority_hash(authority.pem)
    assert len(authority.hash) == 64
    assert authority.hash != authority_hash(found_authority("abc", NOW)[0])


def test_an_authority_needs_the_key_of_its_certificate(authority: Authority) -> None:
    _, other = found_authority("abc", NOW)
    with pytest.raises(BadCertificate, match="not that of its certificate"):
        Authority(authority.pem, other)


def _signed(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _of_another_key() -> bytes:
    """A request whose signature is not by the key in it."""
    request = certificate_request(new_key())
    return request[:-1] + bytes([request[-1] ^ 1])


BAD_REQUESTS = {
    "nothing": lambda: b"",
    "garbage": lambda: b"\x30\x82\xff\xff" * 40,
    "too long": lambda: b"\x30" * 5000,
    "a certificate": lambda: found_authority("abc", NOW)[0],
    "a signature of another key": _of_another_key,
    "a key on another curve": lambda: _signed(ec.generate_private_key(ec.SECP384R1())),
    "a key of RSA": lambda: _signed(rsa.generate_private_key(65537, 2048)),
    "a key of Ed25519": lambda: (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(ed25519.Ed25519PrivateKey.generate(), None)
        .public_bytes(Encoding.DER)
    ),
}


@pytest.mark.parametrize("kind", BAD_REQUESTS)
def test_a_bad_request_gets_no_certificate(kind: str, authority: Authority) -> None:
    with pytest.raises(BadCertificate):
        authority.issue(BAD_REQUESTS[kind](), "abc", "worker", "w", (), NOW)


@pytest.mark.parametrize(
    ("cluster", "role", "name"),
    [
        ("abc", "admin", "n"),
        ("abc", "", "n"),
        ("abc", "server", ""),
        ("abc", "server", "a/b"),
        ("abc", "worker", "../server/n"),
        ("a/server", "worker", "n"),
        ("", "server", "n"),
        ("abc", "server", "n\n"),
        ("abc", "server", "n" * 64),
    ],
)
def test_what_could_be_read_as_somebody_else_gets_no_certificate(
    cluster: str, role: str, name: str, authority: Authority
) -> None:
    with pytest.raises(BadCertificate):
        authority.issue(certificate_request(new_key()), cluster, role, name, (), NOW)


@pytest.mark.parametrize(
    "host", ["", "a b", "*.example.org", "x" * 300, "ex\u00e4mple.org", "a..b"]
)
def test_what_is_no_host_gets_no_certificate(host: str, authority: Authority) -> None:
    with pytest.raises(BadCertificate, match="no host"):
        issued(authority, hosts=(host,))


@pytest.mark.parametrize(
    "uri",
    [
        "grampus:abc/server/n1/x",
        "grampus:abc/server",
        "https://abc/server/n1",
        "grampus:ABC/server/n1",
        "grampus:abc/root/n1",
        "grampus:abc/server/n1\n",
        "",
    ],
)
def test_a_uri_of_another_form_is_nobody(uri: str) -> None:
    assert read_subject(uri, "") is None


def test_a_certificate_that_names_two_or_nobody_is_nobodys() -> None:
    key = ec.generate_private_key(ec.SECP256R1())

    def self_signed(*uris: str) -> bytes:
        name = x509.Name([])
        builder = certificates._builder("x", name, key.public_key(), NOW, certificates._time(NOW))
        if uris:
            names = x509.SubjectAlternativeName(map(x509.UniformResourceIdentifier, uris))
            builder = builder.add_extension(names, critical=False)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)

    good = "grampus:abc/server/n1"
    assert subject_of(self_signed(good)).name == "n1"
    for der in (self_signed(), self_signed(good, "grampus:abc/server/n2"), self_signed("x:y"), b""):
        with pytest.raises(BadCertificate):
            subject_of(der)


# ---- the folder


def modes(folder: TlsFolder) -> dict[str, int]:
    return {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.path.iterdir()}


def test_a_founded_folder_has_all_its_files_and_only_the_authority_may_be_read(
    tmp_path: Path,
) -> None:
    folder = TlsFolder(tmp_path)
    assert not folder.ready
    old = os.umask(0)
    try:
        folder.found("abc", "n1", ["192.0.2.7"], NOW)
    finally:
        os.umask(old)
    assert modes(folder) == {
        "ca.pem": 0o644, "ca-key.pem": 0o600, "node.pem": 0o600, "node-key.pem": 0o600,
    }  # fmt: skip
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert folder.ready
    folder.check()
    assert folder.subject().name == "n1"
    # Again changes neither the authority nor the key.
    before = folder.ca.read_bytes(), folder.key.read_bytes(), folder.certificate.read_bytes()
    folder.found("abc", "n1", ["192.0.2.7"], NOW + DAY)
    assert before[:2] == (folder.ca.read_bytes(), folder.key.read_bytes())
    assert before[2] != folder.certificate.read_bytes()


def test_a_worker_gets_a_certificate_and_never_the_authoritys_key(tmp_path: Path) -> None:
    server, worker = TlsFolder(tmp_path), TlsFolder(tmp_path / "w")
    server.found("abc", "n1", [], NOW)
    worker.path.parent.mkdir()
    request = worker.request()
    # The same key, however often it asks.
    assert request_key(worker.request()) == request_key(request)
    made = server.authority().issue(request, "abc", "worker", "w1", (), NOW)
    expected = Subject("abc", "worker", "w1", request_key(request))
    worker.install(made, server.authority_certificate(), expected)
    assert sorted(modes(worker)) == ["ca.pem", "node-key.pem", "node.pem"]
    assert worker.subject() == expected
    assert not worker.has_authority
    assert worker.ends() == NOW + NODE_LIFE
    later = server.authority().issue(worker.request(), "abc", "worker", "w1", (), NOW + DAY)
    worker.renew(later, NOW + DAY)
    assert worker.ends() == NOW + NODE_LIFE + DAY


def test_what_was_not_asked_for_is_not_installed(tmp_path: Path) -> None:
    server, worker = TlsFolder(tmp_path), TlsFolder(tmp_path / "w")
    server.found("abc", "n1", [], NOW)
    worker.path.parent.mkdir()
    authority = server.authority()
    key, stranger = request_key(worker.request()), certificate_request(new_key())
    others = {
        "another name": authority.issue(worker.request(), "abc", "worker", "w2", (), NOW),
        "another role": authority.issue(worker.request(), "abc", "server", "w1", (), NOW),
        "another key": authority.issue(stranger, "abc", "worker", "w1", (), NOW),
        "another cluster": authority.issue(worker.request(), "abd", "worker", "w1", (), NOW),
        "garbage": b"garbage",
    }
    for certificate in others.values():
        with pytest.raises(FolderError, match="cannot be used"):
            worker.install(certificate, authority.pem, Subject("abc", "worker", "w1", key))
    assert sorted(modes(worker)) == ["node-key.pem"]
    good = authority.issue(worker.request(), "abc", "worker", "w1", (), NOW)
    worker.install(good, authority.pem, Subject("abc", "worker", "w1", key))
    other = Authority(*found_authority("abc", NOW))
    with pytest.raises(FolderError, match="not signed by the cluster's authority"):
        worker.install(good, other.pem, Subject("abc", "worker", "w1", key))
    again = other.issue(worker.request(), "abc", "worker", "w1", (), NOW)
    with pytest.raises(FolderError, match="another authority than the folder's"):
        worker.install(again, other.pem, Subject("abc", "worker", "w1", key))


def test_of_several_certificates_only_the_first_is_kept_as_the_authority(tmp_path: Path) -> None:
    server, worker = TlsFolder(tmp_path), TlsFolder(tmp_path / "w")
    server.found("abc", "n1", [], NOW)
    worker.path.parent.mkdir()
    made = server.authority().issue(worker.request(), "abc", "worker", "w1", (), NOW)
    other, _ = found_authority("abc", NOW)
    subject = Subject("abc", "worker", "w1", request_key(worker.request()))
    worker.install(made, server.authority_certificate() + other, subject)
    assert worker.authority_certificate() == server.authority_certificate()


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    folder = TlsFolder(tmp_path)
    folder.found("abc", "n1", [], NOW)
    for path, use in (
        (folder.key, folder.check),
        (folder.path / "ca-key.pem", folder.authority),
    ):
        path.chmod(0o640)
        with pytest.raises(FolderError, match="chmod 600"):
            use()
        path.chmod(0o600)


def test_a_crash_before_the_rename_leaves_the_old_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = TlsFolder(tmp_path)
    folder.found("abc", "n1", [], NOW)
    before = folder.certificate.read_bytes()

    def crash(self: Path, target: Path) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(SystemExit):
            folder.issue_own("abc", "n1", [], NOW + DAY)
    assert folder.certificate.read_bytes() == before
    folder.check()
    folder.issue_own("abc", "n1", [], NOW + DAY)
    assert folder.certificate.read_bytes() != before
    assert ".node.pem.new" not in modes(folder)


def test_no_secret_is_in_a_repr(tmp_path: Path) -> None:
    folder = TlsFolder(tmp_path)
    folder.found("abc", "n1", [], NOW)
    assert "PRIVATE" not in repr(folder) + repr(folder.authority())
