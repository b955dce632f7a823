"""`python -m gossiplib.peers`: one peer.

One that `Peers` has started ends when its owner is gone. The guard of `Processes` sees
to that first, unless it was killed as well.
"""

import os
import shutil
import threading
import time

from gossiplib.peers.command import main


def _end_with(owner: int, folder: str) -> None:
    """Leave nothing behind, the keys included, when the owner is gone."""
    while os.getppid() == owner:
        time.sleep(1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if os.name == "posix" and "GOSSIPLIB_OWNER" in os.environ:
    pid, _, folder = os.environ["GOSSIPLIB_OWNER"].partition(" ")
    threading.Thread(target=_end_with, args=(int(pid), folder), daemon=True).start()
main()
