"""Slot ``corpus``: from raw documents to clean text, with a reason for everything left out."""
