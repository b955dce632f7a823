"""A client that needs no rounds, for peers: spam, learned from what arrives."""

from gossiplib.asynchronous.client import gossip_on_arrival
from gossiplib.tasks.task import spambase

task = spambase(num_clients=3, partition="dealt", examples=400, seed=0)
client = gossip_on_arrival(task.client_app())
initial = task.initial_arrays
