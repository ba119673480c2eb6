"""Between our artifacts and the formats of other programs: GGUF, model cards, the Hub."""
