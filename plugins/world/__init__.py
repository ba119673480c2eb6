"""The world: a small synthetic web with known facts, so that every claim about a model trained on it can be measured.

One folder serves several slots: pages, dialogues, preferences, problems and a gold reward, all of the same people.
"""
