"""Slot ``preferences``: pairs of a better and a worse answer, from files."""
