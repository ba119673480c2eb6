"""Recipes, launchers and presets, installed as ``llmstages.conf``. Only differences live here: defaults are in the dataclasses."""
