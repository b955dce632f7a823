"""Who may take part, and who is who: certificates as TLS sees them."""

import os
import ssl

import pytest
from cryptography.hazmat.primitives.serialization import (
    load_ssh_private_key,
    load_ssh_public_key,
)

from gossiplib.system.certificates import Authority, Identity, key_pair


def shake_hands(server: Identity, client: Identity, trusted: Authority, name: str):
    """Return the certificates that both sides of a connection see, by mutual TLS."""
    accepts = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=trusted.certificate
    )
    accepts.verify_mode = ssl.CERT_REQUIRED
    accepts.load_cert_chain(*server)
    calls = ssl.create_default_context(cafile=trusted.certificate)
    calls.load_cert_chain(*client)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        calls.wrap_bio(back, there, server_hostname=name),
        accepts.wrap_bio(there, back, server_side=True),
    ]
    for _ in range(3):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return [end.getpeercert() for end in ends]


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.mark.parametrize("name", ["one", "localhost", "127.0.0.1"])
def test_both_sides_know_each_other_by_name(authority, name):
    seen = shake_hands(authority.issue("one"), authority.issue("two"), authority, name)
    names = [dict(part[0] for part in one["subject"])["commonName"] for one in seen]
    assert names == ["one", "two"]


def test_who_is_not_meant_is_refused(authority, tmp_path):
    one, two = authority.issue("one"), authority.issue("two")
    with pytest.raises(ssl.SSLCertVerificationError, match="[Hh]ostname mismatch"):
        shake_hands(two, two, authority, "one")
    expired = authority.issue("late", days=-0.001)
    with pytest.raises(ssl.SSLCertVerificationError, match="has expired"):
        shake_hands(expired, two, authority, "late")
    with pytest.raises(ssl.SSLCertVerificationError, match="has expired"):
        shake_hands(one, expired, authority, "one")
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").issue("one")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(stranger, two, authority, "one")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(one, stranger, authority, "one")


def test_only_the_owner_can_read_a_key_and_that_of_the_authority_is_in_no_file(
    authority, tmp_path
):
    identity = authority.issue("one")
    private, public = key_pair(tmp_path, "node")
    for secret in (identity.key, private):
        assert secret.stat().st_mode & 0o777 == 0o600
    holders = [path for path in tmp_path.iterdir() if b"PRIVATE" in path.read_bytes()]
    assert sorted(holders) == sorted([identity.key, private])
    one = load_ssh_private_key(private.read_bytes(), None)
    assert one.public_key() == load_ssh_public_key(public.read_bytes())
    assert one.curve.name == "secp384r1"


@pytest.mark.parametrize("there", ["open to all", "link", "dangling link", "hard link"])
def test_files_are_new_ones_whatever_had_their_names(there, tmp_path):
    folder, elsewhere = tmp_path / "keys", tmp_path / "elsewhere"
    folder.mkdir()
    if there != "dangling link":
        elsewhere.write_bytes(b"of somebody else")
        elsewhere.chmod(0o666)
    names = ["authority.pem", "one.pem", "one.key", "node", "node.pub"]
    for name in names:
        if there == "open to all":
            (folder / name).touch()
            (folder / name).chmod(0o666)
        elif there == "hard link":
            (folder / name).hardlink_to(elsewhere)
        else:
            (folder / name).symlink_to(elsewhere)
    before = os.umask(0)
    try:
        Authority(folder).issue("one")
        key_pair(folder, "node")
    finally:
        os.umask(before)
    for name in names:
        found = (folder / name).lstat()
        assert found.st_mode == 0o100600 and found.st_nlink == 1 and found.st_size
    if there == "dangling link":
        assert not elsewhere.exists()
    else:
        assert elsewhere.read_bytes() == b"of somebody else"
