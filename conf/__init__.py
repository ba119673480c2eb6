"""Recipes, launchers and presets, ``llmstages.conf``; defaults are in the dataclasses."""
