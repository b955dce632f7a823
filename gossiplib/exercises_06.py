"""Checks of the exercises of notebook 06: when clients differ."""
