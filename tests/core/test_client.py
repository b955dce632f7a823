"""The gossip client, called by hand with Messages."""

import networkx as nx
import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

import stock_apps
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.client import accept_all, choose, gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from toy_apps import drifting_app, still_app, zeros

DRIFT = np.array([1.0, 2.0, 3.0])


@pytest.fixture(autouse=True)
def identity():
    """Messages can be made once there is a LocalGrid."""
    LocalGrid(ClientApp(), 1)


class Client:
    """One client and its context, to call by hand."""

    def __init__(self, app, client=0, num_clients=4, **node_config):
        config = {"partition-id": client, "num-partitions": num_clients} | node_config
        config = {k: v for k, v in config.items() if v is not None}
        self.app = app
        self.context = Context(1, 1, config, RecordDict(), {})

    def call(self, kind, **content):
        reply = self.app(Message(RecordDict(content), 1, kind), self.context)
        assert not reply.has_error()
        return reply.content

    def discover(self, candidates, server_round=1):
        offer = {"candidates": candidates, "server-round": server_round}
        reply = self.call("query.discover", gossip=ConfigRecord(offer))
        return list(reply["gossip"]["neighbours"])

    def train(self, server_round=1, **content):
        config = ConfigRecord({"server-round": server_round})
        return self.call("train", gossip=ConfigRecord(), config=config, **content)

    def average(self, weights, **neighbours):
        senders = [int(name[1:]) for name in neighbours]
        sent = ConfigRecord({"senders": senders, "weights": weights})
        models = {name[1:]: record(x) for name, x in neighbours.items()}
        return self.call("train.average", gossip=sent, **models)

    def model(self):
        return self.call("query.model")["arrays"].to_numpy_ndarrays()[0]


def record(*arrays):
    return ArrayRecord([np.asarray(a, dtype=float) for a in arrays])


def ready(app=None, **options):
    """Return drifting client 0, trained once, with the neighbours 1 and 2."""
    client = Client(gossip(app or drifting_app(), **options))
    client.discover([1, 2])
    client.train(arrays=zeros())
    return client


def test_join_tells_the_partition_and_forgets_an_earlier_run():
    client = ready()
    assert client.call("query.join")["gossip"] == {
        "partition-id": 0,
        "num-partitions": 4,
    }
    assert not client.context.state
    with pytest.raises(ValueError, match="no model yet"):
        client.model()


def test_join_needs_a_partition():
    client = Client(gossip(still_app()), **{"partition-id": None})
    with pytest.raises(ValueError, match="node_config.*lacks.*partition-id"):
        client.call("query.join")


def test_by_default_a_client_takes_all_that_it_is_offered():
    client = Client(gossip(still_app()))
    assert client.discover([1, 3]) == [1, 3]
    assert client.discover([]) == []
    assert accept_all([1, 3], 1, client.context) == [1, 3]


def test_choose_takes_k_at_random_by_seed_client_and_round():
    offer = list(range(1, 20))

    def chosen(seed, client, server_round):
        return Client(gossip(still_app(), discover=choose(4, seed)), client).discover(
            offer, server_round
        )

    first = chosen(0, 0, 1)
    assert len(set(first)) == 4 and set(first) <= set(offer) and first == sorted(first)
    assert chosen(0, 0, 1) == first
    assert first not in [chosen(1, 0, 1), chosen(0, 1, 1), chosen(0, 0, 2)]
    assert Client(gossip(still_app(), discover=choose(4))).discover([1, 3]) == [1, 3]
    with pytest.raises(ValueError, match="k must be.*at least 1; got 0"):
        choose(0)


def test_choose_gives_all_candidates_the_same_chance():
    client = Client(gossip(still_app(), discover=choose(2)))
    often = np.bincount(
        sum((client.discover([0, 1, 2, 3], t) for t in range(500)), []), minlength=4
    )
    assert np.abs(often - 250).max() < 5 * (500 / 4) ** 0.5


def test_partition_ids_may_be_strings():
    client = Client(gossip(still_app(), discover=choose(1)), "2", "4")
    assert client.call("query.join")["gossip"]["partition-id"] == 2
    assert client.discover([1, 3]) in ([1], [3])


@pytest.mark.parametrize(
    "pick",
    [
        lambda candidates, t, context: np.random.default_rng(t).choice(candidates, 1),
        lambda candidates, t, context: {candidates[0]},
        lambda candidates, t, context: [candidates[0], candidates[0]],
    ],
    ids=["numpy", "set", "twice"],
)
def test_discover_may_return_any_collection(pick):
    chosen = Client(gossip(still_app(), discover=pick)).discover([1, 3])
    assert len(chosen) == 1 and chosen[0] in (1, 3)


def test_a_stranger_is_no_neighbour():
    client = Client(gossip(still_app(), discover=lambda c, t, context: [2]))
    with pytest.raises(ValueError, match=r"chose \[2\], but was offered \[1, 3\]"):
        client.discover([1, 3])
    assert not client.context.state


def test_a_client_trains_its_own_model():
    client = Client(gossip(drifting_app()), client=1)
    reply = client.train(arrays=zeros())
    assert np.array_equal(client.model(), 2 * DRIFT)
    assert reply["arrays"] == record(2 * DRIFT)
    assert reply["metrics"]["mean"] == 4
    client.train(2)
    assert np.array_equal(client.model(), 4 * DRIFT)
    client.train(3, arrays=zeros())  # what the server holds does not count any more
    assert np.array_equal(client.model(), 6 * DRIFT)


def test_a_client_without_a_model_says_so():
    client = Client(gossip(still_app()))
    for call in ("train", "evaluate", "query.model"):
        with pytest.raises(ValueError, match="no model yet"):
            client.call(call, gossip=ConfigRecord(), config=ConfigRecord())


def test_the_wrapped_app_sees_its_model_and_its_config_alone():
    seen, app = [], ClientApp()

    @app.train()
    def train(message, context):
        seen.append((message.metadata.message_type, dict(message.content)))
        content = {"arrays": message.content["arrays"]}
        return Message(RecordDict(content), reply_to=message)

    @app.evaluate()
    def evaluate(message, context):
        seen.append((message.metadata.message_type, dict(message.content)))
        return Message(RecordDict(), reply_to=message)

    client, config = Client(gossip(app)), ConfigRecord({"lr": 0.1})
    client.call("train", gossip=ConfigRecord(), config=config, arrays=record([1, 2]))
    client.call("evaluate", gossip=ConfigRecord(), config=config)
    expected = {"arrays": record([1, 2]), "config": config}
    assert seen == [("train", expected), ("evaluate", expected)]


def test_a_client_averages_with_its_neighbours():
    client = ready()
    client.average([0.5, 0.2, 0.3], n1=[1, 0, 0], n2=[0, 1, 1])
    assert np.allclose(client.model(), 0.5 * DRIFT + [0.2, 0.3, 0.3])


def test_the_average_function_gets_models_weights_and_context():
    seen = []

    def average(own, neighbours, weights, context):
        seen.append((own, neighbours, weights, context))
        return neighbours[1]

    client = ready(average=average)
    client.average([0.5, 0.2, 0.3], n1=[1, 0, 0], n2=[0, 1, 1])
    ((own, neighbours, weights, context),) = seen
    assert np.array_equal(own[0], DRIFT)
    assert [m[0].tolist() for m in neighbours] == [[1, 0, 0], [0, 1, 1]]
    assert weights.tolist() == [0.5, 0.2, 0.3]
    assert context.node_config == client.context.node_config
    assert context.senders.tolist() == [1, 2]
    assert client.model().tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("average", "neighbour", "says"),
    [
        (weighted_mean, [1, 2], r"shape \(2,\) instead of \(3,\)"),
        (weighted_mean, [1, 2, np.nan], "NaN"),
        (lambda own, *_: [own[0] * np.inf], [1, 2, 3], "NaN or infinite"),
        (lambda own, *_: [own[0][:2]], [1, 2, 3], r"shape \(2,\)"),
        (lambda own, *_: [], [1, 2, 3], "0 arrays instead of 1"),
    ],
)
def test_an_average_that_cannot_be_used_leaves_the_model_as_it_was(
    average, neighbour, says
):
    client = ready(average=average)
    with pytest.raises(ValueError, match=says):
        client.average([0.5, 0.5], n1=neighbour)
    assert np.array_equal(client.model(), DRIFT)


def test_an_average_function_cannot_change_what_it_gets():
    def average(own, neighbours, weights, context):
        own[0][:] = 0
        return own

    with pytest.raises(ValueError, match="read-only"):
        ready(average=average).average([0.5, 0.5], n1=[1, 2, 3])


def test_a_model_keeps_its_data_types_whatever_an_average_returns():
    def average(own, neighbours, weights, context):
        return [
            sum(w * a for w, a in zip(weights, layer, strict=True))
            for layer in zip(own, *neighbours, strict=True)
        ]

    arrays = ArrayRecord([np.zeros(3, "f4"), np.array(7)])
    client = Client(gossip(echo_app(), average=average))
    client.discover([1])
    client.train(arrays=arrays)
    sent = ConfigRecord({"senders": [1], "weights": [0.5, 0.5]})
    client.call("train.average", gossip=sent, **{"1": arrays})
    mixed = client.call("query.model")["arrays"].to_numpy_ndarrays()
    assert [(a.dtype.str, a.shape) for a in mixed] == [("<f4", (3,)), ("<i8", ())]


def echo_app():
    app = ClientApp()

    @app.train()
    def train(message, context):
        arrays = message.content["arrays"]
        return Message(RecordDict({"arrays": arrays}), reply_to=message)

    return app


def test_a_model_of_a_stranger_is_refused():
    client = ready()
    with pytest.raises(ValueError, match=r"came from \[3\].*neighbours are \[1, 2\]"):
        client.average([0.5, 0.5], n3=[1, 2, 3])
    assert np.array_equal(client.model(), DRIFT)


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("raises", RuntimeError, "the disk is full"),
        ("none", TypeError, "None instead of a Message"),
        ("shape", ValueError, r"array 0 has shape \(2, 2\) instead of \(3,\)"),
        ("nan", ValueError, "array 0 has NaN"),
    ],
)
def test_training_that_fails_leaves_the_model_as_it_was(fault, error, says):
    client = ready(drifting_app(fault, client=0, rounds=(2,)))
    with pytest.raises(error, match=says):
        client.train(2)
    assert np.array_equal(client.model(), DRIFT)
    client.train(3)
    assert np.array_equal(client.model(), 2 * DRIFT)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "one ArrayRecord, the model; it holds 0"),
        ({"a": record([1, 2, 3]), "b": record([1, 2, 3])}, "it holds 2"),
        ({"a": ArrayRecord({"other": zeros()["0"]})}, r"\['other'\], not \['0'\]"),
        ({"a": record([1, 2, 3], [1])}, r"\['0', '1'\], not \['0'\]"),
    ],
)
def test_a_reply_must_hold_one_model_of_the_same_layout(content, says):
    app = ClientApp()

    @app.train()
    def train(message, context):
        return Message(RecordDict(content), reply_to=message)

    with pytest.raises(ValueError, match=says):
        Client(gossip(app)).train(arrays=zeros())


def test_evaluate_is_on_the_own_model_and_changes_nothing():
    client = ready()
    reply = client.call("evaluate", gossip=ConfigRecord(), config=ConfigRecord())
    assert reply["metrics"]["sum"] == DRIFT.sum()
    assert np.array_equal(client.model(), DRIFT)


def consuming_app():
    """Return an app that empties what it gets, to save memory, as Flower allows."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        (model,) = message.content["arrays"].to_numpy_ndarrays(keep_input=False)
        return Message(RecordDict({"arrays": record(model + 1)}), reply_to=message)

    @app.evaluate()
    def evaluate(message, context):
        message.content.pop("arrays").to_numpy_ndarrays(keep_input=False)
        return Message(RecordDict(), reply_to=message)

    return app


def test_the_wrapped_app_may_consume_what_it_gets():
    client = Client(gossip(consuming_app()))
    client.train(arrays=zeros())
    client.train(2)
    client.call("evaluate", gossip=ConfigRecord(), config=ConfigRecord())
    assert client.model().tolist() == [2, 2, 2]


def test_messages_of_other_servers_go_to_the_app_as_they_are():
    client = ready()
    config = ConfigRecord({"server-round": 1})
    reply = client.call("train", arrays=record([1, 1, 1]), config=config)
    assert reply["arrays"] == record(DRIFT + 1)
    reply = client.call("evaluate", arrays=record([1, 1, 1]), config=config)
    assert reply["metrics"]["sum"] == 3
    assert np.array_equal(client.model(), DRIFT)  # the own model is not touched


def test_mods_and_the_state_of_the_wrapped_app_work():
    def double(message, context, call_next):
        reply = call_next(message, context)
        (model,) = reply.content["arrays"].to_numpy_ndarrays()
        reply.content["arrays"] = record(2 * model)
        return reply

    app = ClientApp()

    @app.train(mods=[double])
    def train(message, context):
        calls = context.state.get("mine", ConfigRecord({"calls": 0}))["calls"] + 1
        context.state["mine"] = ConfigRecord({"calls": calls})
        return Message(RecordDict({"arrays": record([calls] * 3)}), reply_to=message)

    client = Client(gossip(app))
    for t in (1, 2):
        client.train(t, arrays=zeros())
    assert client.model().tolist() == [4, 4, 4]


# Stock apps ---------------------------------------------------------------------------

STOCK = {
    "torch": (
        stock_apps.torch_app,
        lambda: ArrayRecord(stock_apps.Net().state_dict()),
    ),
    "sklearn": (
        stock_apps.sklearn_app,
        lambda: ArrayRecord(stock_apps.get_model_params(stock_apps.create_model())),
    ),
}
OPTIONS = {"batch-size": 16, "local-epochs": 1}


@pytest.fixture
def one_thread():
    """Small models train faster with one, on a busy machine much faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(strategy, app, arrays):
    grid = LocalGrid(app, 4, run_config=OPTIONS)
    return strategy.start(
        grid, arrays, num_rounds=3, train_config=ConfigRecord({"lr": 0.05})
    )


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", STOCK)
def test_a_stock_app_gossips_as_it_is(name):
    app, initial = STOCK[name]
    arrays = initial()
    result = run(Gossip(nx.cycle_graph(4)), gossip(app), arrays)
    assert result.lost == []
    assert result.consensus_distance[3] > 0
    for i in range(4):
        model = result.node_arrays[i]
        assert {k: (v.dtype, v.shape) for k, v in model.items()} == {
            k: (v.dtype, v.shape) for k, v in arrays.items()
        }
        assert result.node_evaluate_metrics[3][i]["eval_acc"] > 0.8
    table = result.to_pandas()
    assert table.loc[table["round"] == 3, "evaluate_eval_acc"].min() > 0.8


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", STOCK)
def test_a_stock_app_runs_under_fedavg_bare_or_wrapped(name):
    app, initial = STOCK[name]
    arrays = initial()
    bare, wrapped = (run(FedAvg(), a, arrays) for a in (app, gossip(app)))
    assert bare.evaluate_metrics_clientapp[3]["eval_acc"] > 0.8
    models = [r.arrays.to_numpy_ndarrays() for r in (bare, wrapped)]
    for one, other in zip(*models, strict=True):
        # FedAvg takes the clients in a random order, so sums are rounded differently.
        assert np.allclose(one, other, atol=1e-4)


def test_a_server_of_your_own_need_not_number_its_runs():
    client = Client(gossip(drifting_app()))
    client.call("query.join", gossip=ConfigRecord({"mine": 1}))
    client.discover([1])
    assert client.train(arrays=zeros()).array_records
