"""Certificates and keys for one run: who may take part, and who is who.

Between strangers, an authority that they all trust does what `Authority` does here.
"""

import datetime
import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trustme
from cryptography import exceptions, x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)


class Identity(NamedTuple):
    """The files by which a process shows who it is, in PEM format, with its name."""

    certificate: Path
    key: Path


class Authority:
    """Sign certificates for processes on this machine.

    Certificates and keys go to new files in `folder`, in place of what has their names.
    By the file `certificate` there, everybody knows what this authority has signed. Its
    own key is never written down, so nobody can join later.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.certificate = self.folder / "authority.pem"
        self._ca = trustme.CA(
            path_length=0,
            organization_name="gossiplib",
            organization_unit_name="one run",
        )
        _write(self.certificate, self._ca.cert_pem.bytes())

    def issue(self, name: str, *, days: float = 1.0) -> Identity:
        """Return the files of a certificate for a process on this machine, and its key.

        The process has the common name `name`, beside localhost. The certificate is
        valid for so many `days`; below 0, it expired so long ago.
        """
        now = datetime.datetime.now(datetime.UTC)
        begin = min(days, 0) - 1  # clocks differ
        issued = self._ca.issue_cert(
            *(name, "localhost", "127.0.0.1"),
            common_name=name,
            organization_name="gossiplib",
            organization_unit_name="one run",
            not_before=now + datetime.timedelta(begin),
            not_after=now + datetime.timedelta(days),
        )
        identity = Identity(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        _write(identity.certificate, issued.cert_chain_pems[0].bytes())
        _write(identity.key, issued.private_key_pem.bytes())
        return identity


def check_identity(identity: Identity, authority: Path) -> None:
    """Raise OSError, with the reason, if others would refuse this."""
    read = {}
    for file in (identity.certificate, authority):
        try:
            read[file] = x509.load_pem_x509_certificates(file.read_bytes())
        except ValueError:
            raise OSError(f"{file} holds no certificate in PEM format") from None
    chain, roots = read.values()
    path, mine = identity.certificate, chain[0]
    names = mine.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    if [one.value for one in names] != [path.stem]:
        whose = mine.subject.rfc4514_string()
        raise OSError(f"the certificate {path} is of {whose}, and not of {path.stem}")
    begin, end = mine.not_valid_before_utc, mine.not_valid_after_utc
    if not begin <= (now := datetime.datetime.now(datetime.UTC)) <= end:
        raise OSError(
            f"the certificate {path} holds from {begin} to {end}, and now is {now}: "
            "have a new one issued, or set the clock"
        )
    try:
        key = load_pem_private_key(identity.key.read_bytes(), None)
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm):
        what = "holds no private key in PEM format, without a password"
        raise OSError(f"{identity.key} {what}") from None
    if mine.public_key() != key.public_key():
        raise OSError(f"{identity.key} is not the key of {path}")
    if not any(_has_signed(root, chain[-1]) for root in roots):
        raise OSError(f"{path} was not signed by {authority}")


def _has_signed(root: x509.Certificate, other: x509.Certificate) -> bool:
    try:
        other.verify_directly_issued_by(root)
    except (ValueError, TypeError, exceptions.InvalidSignature):
        return False
    return True


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Return the files of a new private and a public key, as a SuperNode needs them.

    They are `name` and `name`.pub in the `folder`, in OpenSSH's format.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    private, public = Path(folder) / name, Path(folder) / f"{name}.pub"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    _write(private, secret)
    open_ = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    _write(public, open_)
    return private, public


def _write(path: Path, data: bytes) -> None:
    """Write a file that, from the first moment on, only this user can open."""
    path.unlink(missing_ok=True)  # a mode is for new files, and a link leads elsewhere
    with open(path, "xb", opener=partial(os.open, mode=0o600)) as new:
        new.write(data)
