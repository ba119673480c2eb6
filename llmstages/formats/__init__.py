"""Rows of the usual chat, preference and problem data sets, as the message lists of tables.py.

A row names its format by its fields, so most files need no option. Whatever cannot be converted raises ``Unusable``
with a rule and a reason; what is left out of a usable row (reasoning, trailing questions) is counted in ``left_out``.
Left out on purpose: images and audio.
"""

from llmstages.formats.dialogues import DIALOGUES, conversation, detect, dialogue
from llmstages.formats.oasst import gathered
from llmstages.formats.preferences import preference
from llmstages.formats.problems import problem
from llmstages.formats.turns import Message, Row, Unusable, as_messages, hh, turns

__all__ = ["DIALOGUES", "Message", "Row", "Unusable", "as_messages", "conversation", "detect", "dialogue", "gathered", "hh", "preference", "problem", "turns"]
