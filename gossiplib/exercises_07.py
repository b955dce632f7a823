"""Checks of the exercises of notebook 07: without rounds."""
