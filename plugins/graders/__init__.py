"""Graders: whether a reply gives the answer of its problem."""
