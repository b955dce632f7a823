"""An archive on disk: arrays and bytes, written whole or not at all, without pickle.

It is a zip file, not compressed, with arrays in the NPY format: `numpy.load` and unzip
open it too. At its end, in the comment of the zip file, is a SHA-256 of all the rest,
so an archive that was cut short or changed is not read. That finds damage; it is no
signature, and whoever can write the file can write another one. What an archive holds
is for others to say.
"""

import contextlib
import glob
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
import psutil

__all__ = ["BLANK", "Member", "reading", "write"]

Member: TypeAlias = "bytes | np.ndarray"

#: What stands in the place of the digest while it is computed.
BLANK = b"0" * 64


def write(path: str | os.PathLike[str], members: Mapping[str, Member]) -> None:
    """Write an archive of bytes and arrays, in place of an earlier one.

    The members go to a temporary file in the same folder, which takes the name only
    when all is on the disk: whatever happens, there is the old archive or the new one.
    Arrays are written piece by piece, so no second copy is in memory. Only the owner
    can read the file.
    """
    path = Path(path).resolve()
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        writer = left.name.removeprefix(f"{path.name}.").partition(".")[0]
        if writer.isdigit() and not psutil.pid_exists(int(writer)):  # it was killed
            left.unlink(missing_ok=True)
    mine = f"{path.name}.{os.getpid()}."
    file = tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=mine, suffix=".tmp", delete=False
    )
    try:
        with file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.comment = BLANK
                for name, value in members.items():
                    _add(archive, name, value)
            file.write(_digest(file))
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(file.name)
        raise
    _sync_folder(path.parent)


def _add(archive: zipfile.ZipFile, name: str, value: Member) -> None:
    # A fixed date: the same members make the same file.
    info = zipfile.ZipInfo(name + ".npy" * isinstance(value, np.ndarray))
    with archive.open(info, "w", force_zip64=True) as member:
        if isinstance(value, np.ndarray):
            np.lib.format.write_array(member, value, allow_pickle=False)
        else:
            member.write(value)


def _sync_folder(folder: Path) -> None:
    """Let the new name of a file reach the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[Mapping[str, Member]]:
    """Open an archive: name -> bytes or array, which is read when it is looked up.

    Raise ValueError if the file was cut short or altered, or is something else; on
    look-up, if a member is an array of Python objects.
    """
    with open(path, "rb") as file:
        digest = _digest(file)
        if file.read() != digest:
            raise ValueError(
                f"{path} was cut short or altered, or is something else: the SHA-256 "
                "at its end is not that of the file"
            )
        try:
            members = zipfile.ZipFile(file).infolist()
            stored = all(one.compress_type == zipfile.ZIP_STORED for one in members)
        except zipfile.BadZipFile:
            stored = False
        if not stored:  # what is compressed could fill the memory
            raise ValueError(f"{path} is no archive that `write` has made")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            yield archive


def _digest(file: IO[bytes]) -> bytes:
    """Return the digest that belongs at the end of a file; go there."""
    left = file.seek(0, os.SEEK_END) - len(BLANK)
    digest = hashlib.sha256()
    file.seek(0)
    while left > 0 and (data := file.read(min(left, 2**20))):
        digest.update(data)
        left -= len(data)
    digest.update(BLANK)
    return digest.hexdigest().encode()
