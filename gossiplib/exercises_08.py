"""Checks of the exercises of notebook 08: fewer bytes."""
