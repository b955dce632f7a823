"""`python -m gossiplib.peers`: one peer."""

from gossiplib.peers.node import main

main()
