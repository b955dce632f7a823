"""An archive on disk: arrays and bytes, written whole or not at all, without pickle.

It is a zip file, not compressed, with arrays in the NPY format: `numpy.load` and unzip
open it too. Its comment is a SHA-256 of all the rest, by which damage is found. That is
no signature: whoever can write the file can write another one.
"""

import contextlib
import fcntl
import hashlib
import math
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np

Member: TypeAlias = "bytes | np.ndarray"

#: What stands in the place of the digest while it is computed.
BLANK = b"0" * 64


def write(path: str | os.PathLike[str], members: Mapping[str, Member]) -> None:
    """Write an archive of bytes and arrays, in place of an earlier one.

    A temporary file takes the name only when all is on the disk: whatever happens,
    there is the old archive or the new one. Only the owner can read it.
    """
    path = Path(os.path.realpath(path))  # a loop of links is no error to it
    _sweep(path.parent)
    file = _part(path.parent)
    try:
        with file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.comment = BLANK
                for name, value in members.items():
                    _add(archive, name, value)
            file.write(_digest(file))
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)  # while it is locked
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(file.name)
        raise
    _sync_folder(path.parent)


def _part(folder: Path) -> IO[bytes]:
    """Return a new file to write an archive to, locked as long as it is open."""
    while True:
        file = tempfile.NamedTemporaryFile(
            dir=folder, prefix="gossiplib-", suffix=".part", delete=False
        )
        with contextlib.suppress(OSError):  # a disk without locks: `_sweep` spares it
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # it was swept before it was locked


def _sweep(folder: Path) -> None:
    """Remove what writers left that were killed; those that live hold a lock."""
    for left in folder.glob("gossiplib-????????.part"):
        with contextlib.suppress(OSError), left.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


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


class Members(Mapping[str, Member]):
    """The members of an archive of some bytes, each read when it is looked up."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        found = archive.infolist()
        self._archive = archive
        self._found = {one.filename.removesuffix(".npy"): one for one in found}
        if len(self._found) < len(found):
            raise ValueError("two members have one name")
        # What is compressed, or shares its bytes with others, could fill the memory.
        if sum(max(one.file_size, one.compress_size) for one in found) > size or any(
            one.compress_type != zipfile.ZIP_STORED for one in found
        ):
            raise ValueError("its members are longer than the file")

    def __getitem__(self, name: str) -> Member:
        """Read a member; raise ValueError if it is no array of its own length."""
        one = self._found[name]
        try:
            with self._archive.open(one) as member:
                if not one.filename.endswith(".npy"):
                    return member.read()
                version = np.lib.format.read_magic(member)
                if version != (1, 0):
                    raise ValueError(f"NPY format {version}")
                shape, _, dtype = np.lib.format.read_array_header_1_0(member)
                bytes_ = one.file_size - member.tell()
                if dtype.kind not in "biufcO" or (
                    not dtype.hasobject and math.prod(shape) * dtype.itemsize != bytes_
                ):
                    raise ValueError(f"{bytes_} bytes for {dtype} of shape {shape}")
                member.seek(0)
                return np.lib.format.read_array(member, allow_pickle=False)
        except Exception as error:
            raise ValueError(f"the member {name} cannot be read: {error}") from error

    def array(
        self, name: str, codes: str, shape: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """Return an array of one of numpy's types `codes`, or raise ValueError."""
        found = self.get(name)
        if isinstance(found, np.ndarray) and found.dtype.char in codes:
            if shape is None or found.shape == shape:
                return found
        raise ValueError(
            f"{name} is no array of the type and shape that it should have"
        )

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._found)

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self._found)


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[Members]:
    """Open an archive; raise ValueError if it was altered, or is something else.

    What is read takes no more memory than the file is long, whatever it claims to hold.
    """
    with open(path, "rb") as file:
        digest = _digest(file)
        if file.read(len(BLANK)) != digest:
            raise ValueError(
                f"{path} was cut short or altered, or is something else: the SHA-256 "
                "at its end is not that of the file"
            )
        try:
            members = Members(zipfile.ZipFile(file), file.seek(0, os.SEEK_END))
        except Exception as error:  # whatever comes of bytes that somebody has made up
            text = f"{path} is no archive that `write` has made: {error}"
            raise ValueError(text) from error
        yield members


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
