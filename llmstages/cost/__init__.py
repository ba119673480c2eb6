"""Estimates of memory, time and money, before anything runs."""
