"""Checks of the exercises of notebook 09: liars and eavesdroppers."""
