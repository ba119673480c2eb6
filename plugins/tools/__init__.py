"""Teach a model to use tools, and run them."""
