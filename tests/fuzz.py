"""Give made-up bytes to all that reads bytes of others, for a while.

    python tests/fuzz.py [seconds of processor time] [target ...]

A target takes bytes or refuses them, by the one error that it names. Whatever else it
raises is a find, as is memory beyond `ROOM`: the bytes are printed, and the end is 1.
"""

import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import psutil
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from classroom import test_project
from core import test_made_up
from gossiplib.peers.addresses import AddressBook
from gossiplib.peers.bootstrap import Bootstrap
from gossiplib.peers.messages import Mailbox, PeerMessage, Refused, decode, encode
from gossiplib.system import encoding

#: Bytes of memory that all targets together may take beside what is there at the start.
ROOM = 64 * 2**20


class Target(NamedTuple):
    """What reads bytes, the error by which it refuses them, and sound ones."""

    read: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]
    sound: list[bytes]


def _of_records() -> list[bytes]:
    config = {"a": 1, "b": 0.5, "c": "text", "d": b"bytes", "e": True, "f": [1, 2]}
    lists = {"g": ["x", "yz"], "h": [b"", b"z"], "i": [0.5, 1.5], "j": [True], "k": []}
    content = {
        "config": ConfigRecord(config | lists),
        "metrics": MetricRecord({"loss": 0.1, "all": [1.0, 2.0]}),
        "arrays": ArrayRecord([np.ones((2, 3), order="F"), np.zeros(0, np.int8)]),
    }
    return [encoding.dump(RecordDict({name: content[name]})) for name in content]


def _of_peers() -> list[bytes]:
    model = ArrayRecord([np.ones((2, 2), np.float32), np.arange(3.0)])
    return [encode(PeerMessage(t, 2, 5, t, a)) for t in (1, 2) for a in (model, None)]


def _put(data: bytes) -> object:
    mailbox = Mailbox(4, 10**6, 10, initial=ArrayRecord([np.zeros(1)]))
    mailbox.link(1)
    mailbox.expect(ArrayRecord([np.ones((2, 2), np.float32), np.zeros(3)]))
    return mailbox.put(1, data)


def _answer(data: bytes) -> object:
    mailbox = Mailbox(4, 10**6, 10)
    return Bootstrap("a:1", AddressBook(0, 4), mailbox, None).answer(1, data, 0)


_HELLO = RecordDict({"gossip": ConfigRecord({"address": "[::1]:5000", "link": True})})

TARGETS = {
    "records": Target(encoding.load, (ValueError,), _of_records() + _of_peers()),
    "messages": Target(decode, (Refused,), _of_peers()),
    "mailbox": Target(_put, (Refused,), _of_peers()),
    "handshake": Target(_answer, (Refused,), [encoding.dump(_HELLO)]),
    # These refuse by themselves, and tell what they find.
    "checkpoint": Target(test_made_up.fuzz, (), [bytes(2000)]),
    "leaderboard": Target(test_project.fuzz, (), [bytes(2000)]),
}


def altered(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Change sound bytes in a few places."""
    made = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at, to = sorted(rng.choices(range(len(made) + 1), k=2))
        match rng.randrange(7):
            case 0:
                made[at : at + 1] = rng.randbytes(1)
            case 1:  # a length, or another number
                large = rng.choice([0, 1, 255, 2**31, 2**32 - 1, 2**62, 2**64 - 1])
                made[at : at + 8] = large.to_bytes(8, "little")
            case 2:
                made[at:to] = b""
            case 3:
                made[at:at] = made[at:to] * rng.choice([1, 2, 50])
            case 4:
                made[at:at] = rng.choice(others)
            case 5:  # a head that stands at such a place in each entry
                made[at : at + 7] = rng.choice(
                    [b"list\0\0\0", b"config\0", b"<i8\0\0\0\0"]
                )
            case 6:
                made[at:to] = rng.randbytes(to - at)
        del made[2**16 :]
    return bytes(made)


def main(seconds: float = 60.0, *names: str) -> int:
    """Go on until the time is over, or something is found."""
    rng, counts = random.Random(time.time_ns()), Counter()
    targets = {name: TARGETS[name] for name in names or TARGETS}
    for target in targets.values():
        for sound in target.sound:
            target.read(sound)
    memory = psutil.Process().memory_info()
    no_more = memory.vms + 16 * ROOM  # where one message could take all there is
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (no_more, hard))
    end = time.process_time() + float(seconds)
    while time.process_time() < end:
        name = rng.choice([*targets])
        target = targets[name]
        data = altered(rng.choice(target.sound), target.sound, rng)
        try:
            target.read(data)
            counts[name, "taken"] += 1
        except target.refuses:
            counts[name, "refused"] += 1
        except BaseException:
            print(f"{name} does not refuse {data!r}")
            raise
        if counts.total() % 1000 == 0:
            grown = psutil.Process().memory_info().rss - memory.rss
            if grown > ROOM:
                print(f"{grown / 1e6:.0f} MB more than at the start, after {data!r}")
                return 1
    for (name, what), count in sorted(counts.items()):
        print(f"{name}: {count:,} {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
