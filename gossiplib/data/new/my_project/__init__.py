"""my-project: gossip learning with Flower."""
