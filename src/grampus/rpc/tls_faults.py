"""What went wrong with TLS, in words that say what to do. OpenSSL's own are for its authors."""

from __future__ import annotations

import os
import ssl

#: By OpenSSL's code of a certificate that was not accepted here.
_VERIFY = {
    9: "its certificate does not hold yet: are the clocks of both machines right?",
    10: "its certificate has expired",
    18: "its certificate is of another authority: it is no node of this cluster",
    19: "its certificate is of another authority: it is no node of this cluster",
    20: "its certificate is of another authority: it is no node of this cluster",
    26: "its certificate is not for this: a worker's cannot be a server's",
}
#: By OpenSSL's name of what failed, in this process or, told by an alert, in the other.
_REASONS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it does not speak TLS",
    "HTTPS_PROXY_REQUEST": "it does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS 1.3",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no TLS 1.3",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of this node's certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a certificate, and this node has none",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that this node's certificate has expired",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept this node's certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it does not accept this node's certificate for that",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept this node's certificate",
    "UNEXPECTED_EOF_WHILE_READING": "it hung up in the middle",
}


def tls_fault(error: OSError) -> str:
    """One line for an error of a handshake or of a connection with TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, f"its certificate: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        return _REASONS.get(reason, f"TLS failed: {reason.replace('_', ' ').lower() or error}")
    if isinstance(error, ConnectionResetError):
        return "it hung up in the handshake: does it speak TLS 1.3?"
    if isinstance(error, ConnectionAbortedError):
        return "the handshake took too long: does it speak TLS?"
    return os.strerror(error.errno) if error.errno else str(error)
