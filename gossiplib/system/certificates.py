"""Certificates and keys for one run: who may take part, and who is who.

An `Authority` signs a certificate for each process of a run on this machine. Its own
key is never written down, so nobody can join later. Between strangers, an authority
that they all trust does this.
"""

import datetime
import ipaddress
import os
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "Identity", "key_pair"]

_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Identity(NamedTuple):
    """The files by which a process shows who it is, in PEM format."""

    certificate: Path
    key: Path


class Authority:
    """Sign certificates for processes on this machine.

    Parameters
    ----------
    folder : Path
        Where certificates and keys go. It should be open to this user alone.

    Attributes
    ----------
    certificate : Path
        By which everybody knows the certificates that this authority signed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("gossiplib run")
        ends = _days(1)
        signed = (
            _builder(self._name, self._name, self._key.public_key(), *ends)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS, critical=True)
            .add_extension(self._identifier(), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = self.folder / "authority.pem"
        self.certificate.write_bytes(_pem(signed))

    def issue(self, name: str, *, days: float = 1.0) -> Identity:
        """Sign a certificate for a process that listens on this machine.

        Parameters
        ----------
        name : str
            Whose it is. The certificate also holds for localhost.
        days : float
            How long it is valid from now on; a negative number is one that expired
            so long ago.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(name), x509.DNSName("localhost")]
        here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        by = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            self._identifier()
        )
        signed = (
            _builder(_name(name), self._name, key.public_key(), *_days(days))
            .add_extension(by, critical=False)
            .add_extension(x509.SubjectAlternativeName([*names, here]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        identity = Identity(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        identity.certificate.write_bytes(_pem(signed))
        _write_key(identity.key, key, serialization.PrivateFormat.PKCS8)
        return identity

    def _identifier(self) -> x509.SubjectKeyIdentifier:
        return x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a private and a public key in OpenSSH's format, as a SuperNode needs.

    Returns
    -------
    tuple[Path, Path]
        The files of the private and of the public key.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    private, public = Path(folder) / name, Path(folder) / f"{name}.pub"
    _write_key(private, key, serialization.PrivateFormat.OpenSSH)
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
    )
    return private, public


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _days(days: float) -> tuple[datetime.datetime, datetime.datetime]:
    """Return from when to when a certificate is valid."""
    now = datetime.datetime.now(datetime.UTC)
    begin = min(days, 0) - 1  # clocks differ
    return now + datetime.timedelta(begin), now + datetime.timedelta(days)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(
    path: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat
) -> None:
    """Write a private key that only this user can read, from the first moment on."""
    data = key.private_bytes(
        serialization.Encoding.PEM, form, serialization.NoEncryption()
    )
    with open(path, "wb", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
        file.write(data)
