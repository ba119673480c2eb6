"""Reward functions: verifiers and models."""
