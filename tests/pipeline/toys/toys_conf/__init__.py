"""Recipes and presets of the toys."""
