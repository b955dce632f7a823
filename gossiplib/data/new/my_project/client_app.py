"""my-project: the clients. But for two lines, a Flower app like any other."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from gossiplib import gossip
from my_project.task import Net, load_data, test, train

client = ClientApp()


def receive(message: Message, context: Context):
    """Return the model that came, and the client's own data."""
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    here = context.node_config
    data = load_data(
        here["partition-id"], here["num-partitions"], context.run_config["batch-size"]
    )
    return net, *data


@client.train()
def train_client(message: Message, context: Context) -> Message:
    """Train the model on the client's own data."""
    net, data, _ = receive(message, context)
    config = context.run_config
    loss = train(net, data, config["local-epochs"], config["learning-rate"])
    metrics = MetricRecord({"loss": loss, "num-examples": len(data.dataset)})
    arrays = ArrayRecord(net.state_dict())
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@client.evaluate()
def evaluate_client(message: Message, context: Context) -> Message:
    """Test the model on data that the client did not train on."""
    net, _, data = receive(message, context)
    found = {"accuracy": test(net, data), "num-examples": len(data.dataset)}
    return Message(RecordDict({"metrics": MetricRecord(found)}), reply_to=message)


app = gossip(client)
