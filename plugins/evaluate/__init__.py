"""Measure every model of the chain on the same questions."""
