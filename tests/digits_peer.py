"""The digits on four clients, as peers of the tests run them."""

from gossiplib.core.client import gossip
from gossiplib.tasks.task import digits

task = digits(num_clients=4, partition="dealt", examples=200, seed=0)
client = gossip(task.client_app())
initial = task.initial_arrays
