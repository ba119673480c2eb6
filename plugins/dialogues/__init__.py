"""Slot ``dialogues``: conversations from files, from the Hub, or written by a model."""
