"""Slot ``dialogues``: conversations to train on, from files or from the Hub."""
