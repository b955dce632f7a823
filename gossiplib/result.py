"""What a run of gossip learning leaves behind, whichever engine ran it."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import Result

from gossiplib.arrays import flat

__all__ = ["GossipResult", "Loss", "first_metrics", "mean_metrics"]

NodeMetrics = dict[int, dict[int, MetricRecord]]


class Loss(NamedTuple):
    """One call of a client that came to nothing."""

    round: int
    client: int
    call: str
    reason: str


@dataclass
class GossipResult(Result):
    """The `Result` of a Flower strategy, and what each client has.

    Where a Result has one metric a round, that is the mean over the clients here.
    `arrays` is the mean of the clients' final models, which no client holds.

    Attributes
    ----------
    node_arrays : dict[int, ArrayRecord]
        Partition id -> the client's final model.
    node_train_metrics, node_evaluate_metrics, node_server_metrics : dict
        Round -> partition id -> metrics: of training, of `evaluate` at the clients,
        and of the server's `evaluate_fn`, called for each client's model.
    consensus_distance : dict[int, float]
        Round -> √(mean over clients of ‖x_i - x̄‖²), see `mixing`.
    messages, bytes : dict[int, int]
        Round -> models that clients received from neighbours, and their size in bytes:
        what gossip costs wherever it runs.
    server_bytes : dict[int, int]
        Round -> bytes of models through the server, in and out, which relays them.
        Calls that only measure (`query.model`) are not counted.
    lost : list of Loss
        Calls that failed: round, client, call and reason.
    """

    node_arrays: dict[int, ArrayRecord] = field(default_factory=dict)
    node_train_metrics: NodeMetrics = field(default_factory=dict)
    node_evaluate_metrics: NodeMetrics = field(default_factory=dict)
    node_server_metrics: NodeMetrics = field(default_factory=dict)
    consensus_distance: dict[int, float] = field(default_factory=dict)
    messages: dict[int, int] = field(default_factory=dict)
    bytes: dict[int, int] = field(default_factory=dict)
    server_bytes: dict[int, int] = field(default_factory=dict)
    lost: list[Loss] = field(default_factory=list)

    def __repr__(self) -> str:
        """Tell the size of the run, not its every number."""
        return (
            f"GossipResult({len(self.node_arrays)} clients, {len(self.messages)} "
            f"rounds, {sum(self.messages.values())} messages, {len(self.lost)} lost)"
        )

    def models(self) -> np.ndarray:
        """Return the final models as rows, in the order of the partition ids.

        Shape (clients, parameters), float64. A client that never had a model is left
        out; `node_arrays` tells which are there.
        """
        return np.stack([flat(self.node_arrays[i]) for i in sorted(self.node_arrays)])

    def to_pandas(self, by: str = "client") -> pd.DataFrame:
        """Return a tidy table.

        Parameters
        ----------
        by : {"client", "round"}
            One row for each round and client, with the metrics `train_*`,
            `evaluate_*` and `server_*` and the number of `lost` calls; or one row for
            each round, with the consensus distance, messages and bytes.
        """
        if by == "round":
            columns = ("consensus_distance", "messages", "bytes", "server_bytes")
            table = pd.DataFrame({name: getattr(self, name) for name in columns})
            lost = pd.Series([loss.round for loss in self.lost], dtype=int)
            table["lost"] = lost.value_counts().reindex(table.index, fill_value=0)
            return table.sort_index().rename_axis("round").reset_index()
        if by != "client":
            raise ValueError(f'by is "client" or "round", not {by!r}')
        rows: dict[tuple[int, int], dict] = {}
        for source in ("train", "evaluate", "server"):
            for t, clients in getattr(self, f"node_{source}_metrics").items():
                for i, metrics in clients.items():
                    row = rows.setdefault((t, i), {})
                    row.update({f"{source}_{k}": v for k, v in metrics.items()})
        for loss in self.lost:
            row = rows.setdefault((loss.round, loss.client), {})
            row["lost"] = row.get("lost", 0) + 1
        records = [{"round": t, "client": i} | row for (t, i), row in rows.items()]
        table = pd.DataFrame(records, columns=None if records else ["round", "client"])
        lost = table["lost"] if "lost" in table else pd.Series(0, table.index)
        table["lost"] = lost.fillna(0).astype(int)
        return table.sort_values(["round", "client"], ignore_index=True)


def first_metrics(content: RecordDict) -> MetricRecord:
    """Return the first MetricRecord of a reply; an empty one if it has none."""
    return next(iter(content.metric_records.values()), MetricRecord())


def mean_metrics(clients: dict[int, MetricRecord]) -> MetricRecord:
    """Return the plain mean of each metric that all clients report, in one shape.

    `num-examples`, by which Flower weighs, is left out.
    """
    records = list(clients.values())
    shared = set(records[0]).intersection(*records) if records else ()
    mean = MetricRecord()
    for name in records[0] if records else ():
        if name in shared and name != "num-examples":
            values = [r[name] for r in records]
            if len({np.shape(v) for v in values}) == 1:
                mean[name] = np.mean(values, axis=0).tolist()
    return mean
