"""Train or adopt a tokenizer, and register the control tokens of chat and tools."""
