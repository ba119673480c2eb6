"""Jagged abilities: questions that are easy for people and hard for language models.

A model reads tokens, not letters, and has a fixed amount of computation for each token that it
writes. So it counts letters badly, reverses words badly, takes 9.11 for larger than 9.9, and
multiplies badly unless it may write the steps or call a tool (Karpathy, "Deep Dive into LLMs like
ChatGPT": "models need tokens to think"). The stages problems.jagged, dialogues.jagged and
evaluate.jagged all take their questions from here.

A question is for tests or for training by what it is about (its word, its two numbers, ...), so the
three stages agree whatever their seeds are, and need not be wired to each other.
"""
