"""Archives on disk: writers beside each other, what killed ones leave, and lies."""

import fcntl
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest

from gossiplib.system import archive

#: Names that a pattern, a suffix or the length of names could confuse.
NAMES = ["a.zip", "a.zip.2", "a.zip.2.tmp", "a.zip.2.7.tmp", "[a]*?.zip", "é" * 127]
NAMES += ["gossiplib-.part", "a" * 255]


def test_writers_in_one_folder_leave_each_other_alone(tmp_path):
    failed = []

    def write(name, who):
        try:
            for k in range(30):
                archive.write(tmp_path / name, {"who": bytes([who]), "k": bytes([k])})
        except BaseException as error:
            failed.append(error)

    writers = [(name, who) for name in NAMES for who in (0, 1)]
    threads = [threading.Thread(target=write, args=one) for one in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert {*os.listdir(tmp_path)} == {*NAMES}
    for name in NAMES:  # the last one has won, whole
        with archive.reading(tmp_path / name) as kept:
            assert kept["who"] in (b"\0", b"\1") and kept["k"] == bytes([29])


def test_leftovers_of_the_killed_go_and_those_who_live_are_spared(tmp_path):
    script = """
import os, signal, sys
from gossiplib.system import archive
os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)
archive.write(sys.argv[1], {"a": b"1"})
"""
    others = {"a.zip.bak", "gossiplib-my-own.part", "a.zip.1.abc.tmp"}
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    for _ in range(2):
        killed = [sys.executable, "-c", script, tmp_path / "b.zip"]
        assert subprocess.run(killed).returncode == -signal.SIGKILL
    (left,) = {*os.listdir(tmp_path)} - others  # the second has swept up the first
    living = tmp_path / "gossiplib-alive123.part"
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        archive.write(tmp_path / "a.zip", {"a": b"1"})
        assert {*os.listdir(tmp_path)} == {"a.zip", living.name, *others}
    archive.write(tmp_path / "a.zip", {"a": b"1"})
    assert {*os.listdir(tmp_path)} == {"a.zip", *others}


def test_a_file_that_is_swept_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    real, made = archive.tempfile.NamedTemporaryFile, []

    def swept(**options):
        made.append(real(**options))
        if len(made) < 3:
            archive._sweep(tmp_path)
        return made[-1]

    monkeypatch.setattr(archive.tempfile, "NamedTemporaryFile", swept)
    archive.write(tmp_path / "a.zip", {"a": b"1"})
    assert len(made) == 3 and os.listdir(tmp_path) == ["a.zip"]


# Made up, with a digest that is right -------------------------------------------------


def made_up(path, *members, kind=zipfile.ZIP_STORED, change=lambda data: data):
    """Write an archive of (name, bytes); `change` it before the digest is added."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as file:
        file.comment = archive.BLANK
        for name, data in members:
            file.writestr(name, data)
    data = change(buffer.getvalue()[: -len(archive.BLANK)])
    digest = hashlib.sha256(data + archive.BLANK).hexdigest().encode()
    path.write_bytes(data + digest)
    return path


def npy(shape, descr="<f8", data=b"", version=b"\1\0"):
    """Return an array's bytes, with a header of one's own."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n"
    length = len(text).to_bytes(2, "little")
    return b"\x93NUMPY" + version + length + text.encode() + data


ARRAYS = {
    "2**40 numbers": npy((2**40,)),
    "2**40 numbers of no bytes": npy((2**40,), "<U0"),
    "2**70 numbers": npy((2**70,)),
    "none, of 2**70 columns": npy((0, 2**70)),
    "negative": npy((-1, -1), data=bytes(8)),
    "no numbers": npy((1,), "<U2", bytes(8)),
    "times": npy((1,), "<M8[s]", bytes(8)),
    "records": npy((1,), [("a", "<f8")], bytes(8)),
    "objects": npy((1,), "|O", b"cos\nsystem\n."),
    "too long": npy((1,), data=bytes(9)),
    "nested": npy("(" * 300 + ")" * 300),
    "signs": npy("-" * 5000 + "1"),
    "another version": npy((1,), data=bytes(8), version=b"\2\0"),
    "cut short": npy((1,))[:20],
    "empty": b"",
}


@pytest.mark.parametrize("lie", ARRAYS)
def test_an_array_that_lies_is_refused_before_it_takes_memory(lie, tmp_path):
    path = made_up(tmp_path / "a.zip", ("one.npy", ARRAYS[lie]), ("two", b"2"))
    with archive.reading(path) as kept:
        assert kept["two"] == b"2" and [*kept] == ["one", "two"]
        with pytest.raises(ValueError, match="the member one cannot be read"):
            kept["one"]


def in_directory(old, new):
    """Return a change of the last place, in the zip file's directory."""
    return lambda data: new.join(data.rsplit(old, 1))


def test_zip_files_that_lie_are_refused(tmp_path):
    path, big = tmp_path / "a.zip", b" " * 10**6
    lies = [
        made_up(path.with_name("1"), ("a", big), kind=zipfile.ZIP_DEFLATED),
        made_up(path.with_name("2"), ("a", b"1"), ("a.npy", b"1")),
        made_up(
            path.with_name("3"),
            ("a", b"1"),
            ("b", b"2"),
            change=in_directory(b"b", b"a"),
        ),
        made_up(
            path.with_name("4"),
            ("a", b"1234567"),
            change=in_directory(b"\7\0\0\0", b"\0\0\0\x7f"),
        ),
        made_up(path.with_name("5"), ("a", b"1"), change=lambda data: b""),
    ]
    for lie in lies:
        with pytest.raises(ValueError, match=f"{lie.name} is no archive that"):
            with archive.reading(lie):
                pass


@pytest.mark.parametrize("place", range(46))
def test_a_directory_with_any_other_byte_is_read_or_refused(place, tmp_path):
    for value in (0, 1, 8, 0x7F, 0xFF):

        def change(data, value=value):
            at = data.rindex(b"PK\1\2") + place
            return data[:at] + bytes([value]) + data[at + 1 :]

        path = made_up(tmp_path / "a.zip", ("abc", b"12345678"), change=change)
        try:
            with archive.reading(path) as kept:
                found = [kept[name] for name in kept]
        except ValueError:
            continue
        assert found in ([], [b"12345678"])


def test_a_member_is_an_array_of_the_type_and_shape_that_is_asked_for(tmp_path):
    archive.write(tmp_path / "a.zip", {"a": np.zeros((2, 3)), "b": b"1"})
    with archive.reading(tmp_path / "a.zip") as kept:
        assert np.array_equal(kept.array("a", "fd", (2, 3)), np.zeros((2, 3)))
        for wrong in (("a", "f"), ("a", "d", (3, 2)), ("b", "d"), ("c", "d")):
            with pytest.raises(ValueError, match=f"^{wrong[0]} is no array"):
                kept.array(*wrong)


def test_a_link_to_itself_gives_way(tmp_path):
    path = tmp_path / "run.zip"
    path.symlink_to(path)
    archive.write(path, {"one": b"1"})
    with archive.reading(path) as members:
        assert members["one"] == b"1" and not path.is_symlink()
