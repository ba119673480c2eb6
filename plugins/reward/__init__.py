"""Reward models from rankings."""
