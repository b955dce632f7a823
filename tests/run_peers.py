"""Eight peers learn the digits: `make peers`.

Two of them are killed, and one of these comes back. Peers import `client` and `initial`
from here; run as a program, it starts them, prints and draws what they leave behind.
"""

import logging
from collections import Counter
from pathlib import Path

import networkx as nx

from gossiplib import gossip
from gossiplib.tasks import digits

OUT = Path(__file__).resolve().parents[1] / "out"

_task = digits(num_clients=8, seed=0)
client = gossip(_task.client_app(batch_size=16))
initial = _task.initial_arrays


def main() -> None:
    """Run the peers."""
    from gossiplib.peers import Peers
    from gossiplib.viz import plots, timeline

    logging.getLogger("flwr").setLevel("ERROR")
    graph = nx.cycle_graph(8)
    graph.add_edges_from([(0, 4), (2, 6)])
    print(
        "8 processes start, and each loads PyTorch: some 60 s in all, on two cores",
        flush=True,
    )
    names = ("run_peers:client", "run_peers:initial")
    where = Path(__file__).parent
    options = {"num_rounds": 400, "timeout": 20}
    options |= {"evaluate_every": 10, "observe_every": 10}
    with Peers(*names, graph, path=where, **options) as peers:
        peers.wait_for_round(5, 180)
        print("5 rounds are done: peer 3 is killed", flush=True)
        peers.kill(3)
        peers.wait_for_round(10)
        print("10 rounds are done: peer 6 is killed, peer 3 starts again", flush=True)
        peers.kill(6)
        peers.restart(3)
        peers.wait(300)
        result, table = peers.result(), peers.events()
    back = table[table["event"] == "caught up"]
    when = f"in round {back['round'].max():.0f}" if len(back) else "when all had ended"
    print(f"peer 3 came back {when}")
    print(
        f"{sum(result.messages.values())} models arrived; these were missed, and why:"
    )
    for reason, count in Counter(loss.reason for loss in result.lost).most_common():
        print(f"{count:6} {reason}")
    print("\nAccuracy of each peer on its own test images, by round:")
    by_client = result.to_pandas().pivot(
        index="round", columns="client", values="evaluate_accuracy"
    )
    every = [t for t in (10, 20, 50, 100, 200, 400) if t in by_client.index]
    print(by_client.loc[every].to_string(float_format="{:.2f}".format, na_rep=""))
    OUT.mkdir(exist_ok=True)
    plots.accuracy({"peers": result}).savefig(OUT / "peers.png", bbox_inches="tight")
    own = table[table["peer"] == 3]
    again = own.loc[own["event"] == "started", "time"].max()
    killed = own.loc[own["time"] < again, "time"].max()
    figure = timeline.space_time(table, killed - 0.2, killed + 0.2)
    figure.savefig(OUT / "messages.png")
    print(f"\nIn {OUT}: peers.png, the accuracy;")
    print("messages.png, who talked to whom when peer 3 was killed")


if __name__ == "__main__":
    main()
