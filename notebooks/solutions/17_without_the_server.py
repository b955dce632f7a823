"""Solutions of notebook 17: and with no server at all?"""

from gossiplib.classroom import check


def largest_weight():
    """17.1: 1 / (1 + max(3, d)) is largest where d does not count."""
    return (1 / (1 + 3),)


def stamps():
    """17.2: a new start ends all earlier ones; within a process, counts must grow.

    A receiver keeps the last stamp, and the starts before it. Without these, a late
    message of a process that has ended would pass for one of a new process, and would
    shut out the one that lives.
    """

    def fresh(taken, new):
        start, count = new
        if taken and start == taken[-1][0]:
            return count > taken[-1][1]
        return start not in {earlier for earlier, _ in taken}

    return (fresh,)


def skip():
    """17.3: only if all are far ahead; the slowest decides."""

    def next_round(mine, newest):
        far = bool(newest) and min(newest.values()) >= mine + 2
        return min(newest.values()) if far else mine

    return (next_round,)


def happened_before():
    """17.4: Lamport's relation, walked backwards.

    What peer 2 knows at 0.9 is what the senders knew when they sent what had arrived by
    then.
    """

    def influence(messages, peer, time):
        known = {peer}
        for sender, receiver, sent, received in messages:
            if receiver == peer and received <= time:
                known |= influence(messages, sender, sent)
        return known

    return (influence,)


def what_a_mailbox_knows():
    """17.5: how many peers there are, and which messages it has had; not who is honest.

    Among eight peers nobody has a degree of 100. A message of round 20 may be right:
    perhaps it is peer 0 that was away. Those between 1 and 40 may be lost. And the thief
    looks like peer 1 started anew: from then on the true peer 1 is its own past, and is
    refused until it is started again.
    """
    return "refused", "taken", "taken", "refused"


ANSWERS = {
    "17.1": largest_weight,
    "17.2": stamps,
    "17.3": skip,
    "17.4": happened_before,
    "17.5": what_a_mailbox_knows,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
