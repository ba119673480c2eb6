"""Reinforcement learning on problems and rewards."""
