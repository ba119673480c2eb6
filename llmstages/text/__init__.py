"""Between text and tokens: messages, chat templates, encoding, generation, grading."""
