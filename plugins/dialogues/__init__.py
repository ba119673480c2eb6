"""Dialogues from local files and from the Hub; the synthetic ones are in plugins/world."""
