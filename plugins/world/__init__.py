"""The world: a small synthetic web with known facts, so that every claim can be measured.

One folder serves several slots: pages, dialogues, preferences, problems and a gold reward, all
about the same people.
"""
