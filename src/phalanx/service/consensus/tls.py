"""Doors over TCP: TLS 1.3 in which each side shows a certificate that the other side knows by heart.

There is no authority that issues certificates, and so no key of one to be kept or stolen: every certificate is signed
by its own key, and each side accepts those certificates, byte for byte, that the network's files list for the name that
it expects. A node can therefore pose as no other, a certificate of another network is as strange as any, and taking one
off the list ends it.
"""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from phalanx.errors import DataError, UsageError

__all__ = ["TlsAddress", "accepting", "calling", "make_certificate"]

_BEGINS = datetime(2000, 1, 1, tzinfo=UTC)
_ENDS = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # "no well-defined expiration date", RFC 5280, 4.1.2.5


@dataclass(frozen=True, eq=False)
class TlsAddress:
    """Where a door is, and who may be on the other side of a connection.

    Attributes:
        host: IP address, or a name that resolves to one.
        port: of TCP.
        context: this side's certificate, and those that it accepts.
        peers: names of whom it accepts, by their certificates' DER.
    """

    host: str
    port: int
    context: ssl.SSLContext = field(repr=False)
    peers: Mapping[bytes, str] = field(repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def other_side(self, connection: ssl.SSLSocket) -> str:
        """Who is on the other side, after the handshake.

        Raises:
            ssl.SSLError: nobody that is accepted here.
        """
        name = self.peers.get(connection.getpeercert(binary_form=True) or b"")
        if name is None:
            raise ssl.SSLError(f"{self}: the certificate there is none that is accepted")
        return name


def make_certificate(path: Path, name: str) -> str:
    """Makes a key with its certificate.

    Args:
        path: of the file that holds both, in PEM, readable by its owner alone; it must not be there yet.
        name: of whose it is.

    Returns:
        The certificate, in PEM, for the others.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    called = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(called, called, key.public_key(), x509.random_serial_number())
        .not_valid_before(_BEGINS)
        .not_valid_after(_ENDS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, None)
    )
    certificate = made.public_bytes(form.Encoding.PEM)
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private + certificate)
        file.flush()
        os.fsync(file.fileno())
    return certificate.decode()


def accepting(host: str, port: int, own: Path, guests: Mapping[str, str]) -> TlsAddress:
    """An address to listen on.

    Args:
        host, port: to bind.
        own: file that ``make_certificate`` made.
        guests: certificates of those who may connect, PEM by name.

    Raises:
        DataError: a certificate or the key cannot be read.
        UsageError: others than its owner may read the key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # every connection shows its certificate
    return _address(host, port, context, own, guests)


def calling(host: str, port: int, own: Path, name: str, certificate: str) -> TlsAddress:
    """An address to connect to.

    Args:
        host, port: of the door.
        own: file that ``make_certificate`` made for this side.
        name: whose door it is.
        certificate: the one that it must show, PEM.

    Raises:
        DataError: a certificate or the key cannot be read.
        UsageError: others than its owner may read the key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it is known by its certificate, wherever it is
    return _address(host, port, context, own, {name: certificate})


def _address(
    host: str, port: int, context: ssl.SSLContext, own: Path, peers: Mapping[str, str]
) -> TlsAddress:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        if own.stat().st_mode & 0o077:
            raise UsageError(
                f"{own}: lets others than its owner at the key. Run chmod 600 {own}, and replace the member if "
                "somebody may have read it"
            )
        context.load_cert_chain(own)
        context.load_verify_locations(cadata="\n".join(peers.values()))
        known = {ssl.PEM_cert_to_DER_cert(text.strip()): name for name, text in peers.items()}
    except (OSError, ValueError) as problem:  # ssl.SSLError is an OSError
        raise DataError(
            f"{own}: cannot use it, or a certificate of the network, for TLS ({problem}). Restore the folder from a "
            "copy"
        ) from None
    return TlsAddress(host, port, context, known)
