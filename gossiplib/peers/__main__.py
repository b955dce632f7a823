"""`python -m gossiplib.peers`: one peer."""

from gossiplib.peers.command import main

main()
