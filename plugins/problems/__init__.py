"""Slot ``problems``: questions with answers that can be checked, from files."""
