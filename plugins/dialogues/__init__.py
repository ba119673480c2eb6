"""Slot ``dialogues``: conversations to train on, from files, from the Hub, or written by a model."""
