"""What a run of gossip learning leaves behind, whichever engine ran it."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Result

from gossiplib.system.records import StackedMetrics, StackedModels, flat, mean_metrics

NodeMetrics: TypeAlias = dict[int, Mapping[int, MetricRecord]]
#: (round, model) -> metrics of the model, or None where there is nothing to tell.
EvaluateFn: TypeAlias = Callable[[int, ArrayRecord], MetricRecord | None]


def as_evaluate_fn(evaluate_fn: object) -> EvaluateFn | None:
    """Return a user's `evaluate_fn`, if any, made to tell MetricRecords of its own.

    It may tell a dict of numbers, as with `FedAvg`. Raise TypeError if it is no
    function, or when it tells something else.
    """
    if evaluate_fn is None:
        return None
    if not callable(evaluate_fn):
        kind = type(evaluate_fn).__name__
        raise TypeError(
            f"evaluate_fn must be a function of (round, arrays); got {kind}"
        )

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        told = evaluate_fn(server_round, arrays)
        if told is None:
            return None
        if not isinstance(told, Mapping):
            kind = type(told).__name__
            raise TypeError(
                f"evaluate_fn must tell metrics by name, or None; got {kind}"
            )
        try:  # a copy: the function may tell one record again and again
            return MetricRecord({k: np.asarray(v).tolist() for k, v in told.items()})
        except TypeError as error:
            text = f"evaluate_fn must tell numbers by name; got {dict(told)!r:.80}"
            raise TypeError(f"{text}: {error}") from error

    return evaluate


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
    seconds : dict[str, float]
        Time that the run spent on "train", "average" and "measure" (all that gossip
        itself does not need: `evaluate`, `evaluate_fn`, consensus distance), and on
        "checkpoint", if it wrote any.
    unsaved : list of int
        Rounds whose checkpoint could not be written.
    """

    node_arrays: Mapping[int, ArrayRecord] = field(default_factory=dict)
    node_train_metrics: NodeMetrics = field(default_factory=dict)
    node_evaluate_metrics: NodeMetrics = field(default_factory=dict)
    node_server_metrics: NodeMetrics = field(default_factory=dict)
    consensus_distance: dict[int, float] = field(default_factory=dict)
    messages: dict[int, int] = field(default_factory=dict)
    bytes: dict[int, int] = field(default_factory=dict)
    server_bytes: dict[int, int] = field(default_factory=dict)
    lost: list[Loss] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    unsaved: list[int] = field(default_factory=list)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Return a context that adds the time that it takes to ``seconds[what]``."""
        start = time.perf_counter()
        yield
        took = time.perf_counter() - start
        self.seconds[what] = self.seconds.get(what, 0.0) + took

    def evaluate(
        self,
        server_round: int,
        models: Mapping[int, ArrayRecord],
        evaluate_fn: EvaluateFn,
    ) -> None:
        """Call `evaluate_fn` for `models`, and keep the metrics of `server_round`."""
        told = {i: evaluate_fn(server_round, m.copy()) for i, m in models.items()}
        if metrics := {i: m for i, m in told.items() if m is not None}:
            self.node_server_metrics[server_round] = metrics
            self.evaluate_metrics_serverapp[server_round] = mean_metrics(metrics)

    def raise_if_all_lost(
        self, num_clients: int, when: str, call: str | None = None
    ) -> None:
        """Raise an error if `call`, or any at all, failed at all `num_clients`.

        `when` is what the message calls the time.
        """
        failed = {loss.client for loss in self.lost if call in (None, loss.call)}
        if len(failed) == num_clients:
            last, to = self.lost[-1], f" to {call}" if call else ""
            raise RuntimeError(
                f"all clients failed{to} by {when}; client {last.client}: {last.reason}"
            )

    def __repr__(self) -> str:
        """Tell the size of the run, not its every number."""
        return (
            f"GossipResult({len(self.node_arrays)} clients, {len(self.messages)} "
            f"rounds, {sum(self.messages.values())} messages, {len(self.lost)} lost)"
        )

    def models(self) -> np.ndarray:
        """Return the final models as rows, in the order of the partition ids.

        Shape (clients, parameters); float64, but of the vectorised engine in the data
        type of its models. A client that never had a model is left out; `node_arrays`
        tells which are there.
        """
        if isinstance(self.node_arrays, StackedModels):
            return self.node_arrays.rows()
        rows = [flat(self.node_arrays[i]) for i in sorted(self.node_arrays)]
        return np.stack(rows) if rows else np.empty((0, 0))

    def to_pandas(self, by: str = "client") -> pd.DataFrame:
        """Return a tidy table, sorted by round and client.

        It has a row for each round and client, with the metrics `train_*`, `evaluate_*`
        and `server_*` and the number of `lost` calls; or, `by` "round", one for each
        round, with the consensus distance, messages and bytes.

        Raises
        ------
        ValueError
            If `by` is something else.
        """
        if by == "round":
            columns = ("consensus_distance", "messages", "bytes", "server_bytes")
            table = pd.DataFrame({name: getattr(self, name) for name in columns})
            lost = pd.Series([loss.round for loss in self.lost], dtype=int)
            table["lost"] = lost.value_counts().reindex(table.index, fill_value=0)
            return table.sort_index().rename_axis("round").reset_index()
        if by != "client":
            raise ValueError(f'by is "client" or "round", not {by!r}')
        sources = [
            _columns(source, getattr(self, f"node_{source}_metrics"))
            for source in ("train", "evaluate", "server")
        ]
        lost = pd.DataFrame(self.lost, columns=Loss._fields)
        lost = lost.groupby(["round", "client"]).size().rename("lost")
        table = pd.concat([*sources, lost], axis=1).sort_index().reset_index()
        table["lost"] = table["lost"].fillna(0).astype(int)
        return table


def _columns(source: str, rounds: NodeMetrics) -> pd.DataFrame:
    """Return metrics as columns `source_*`, by round and client."""
    frames = []
    for t, clients in rounds.items():
        if not len(clients):
            continue
        columns: Any = [dict(metrics) for metrics in clients.values()]
        if isinstance(clients, StackedMetrics):
            columns = clients.columns
        index = pd.MultiIndex.from_product([[t], list(clients)])
        frames.append(pd.DataFrame(columns, index=index))
    empty = pd.DataFrame(index=pd.MultiIndex.from_product([[], []]))
    table = pd.concat(frames) if frames else empty
    return table.add_prefix(f"{source}_").rename_axis(["round", "client"])
