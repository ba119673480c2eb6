"""Preference pairs from local files; the synthetic ones are in plugins/world."""
