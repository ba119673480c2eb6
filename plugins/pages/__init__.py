"""Slot ``pages``: raw documents, from files or from the Hub."""
