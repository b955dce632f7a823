"""Solutions of notebook 16: does it run for real?"""

import math

from gossiplib.classroom import check


def who_opens():
    """16.1: all come to the SuperLink. Nobody has to let anybody in but you."""
    return ({("supernode", "superlink"), ("flwr", "superlink")},)


def a_long_evening():
    """16.2: join, discover, 60 times train and average, and the look at the end.

    `serve` asks for no evaluation and for no look in between.
    """
    return (6 * (1 + 1 + 60 * 2 + 1),)


def heartbeats():
    """16.3: the newest heartbeat that is known decides."""

    def is_online(heartbeats, now, interval):
        known = [t for t in heartbeats if t <= now]
        return bool(known) and now - max(known) <= 2 * interval

    return (is_online,)


def how_often():
    """16.4: C/T + T/(2M) is smallest where its derivative is 0: at T = √(2CM)."""
    return (math.sqrt(2 * 2 * 6 * 3600),)


def what_is_kept():
    """16.5: the checkpoint has the clients' states. A variable of the module is none.

    From round 2 a client does round 3 again, and comes to the same models: the same
    state, the same data, the same round. Momentum in `context.state` is a part of the
    state. But the new process imports `client.py` anew, and its generator begins again.
    """
    return "equal", "different", "equal"


ANSWERS = {
    "16.1": who_opens,
    "16.2": a_long_evening,
    "16.3": heartbeats,
    "16.4": how_often,
    "16.5": what_is_kept,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
