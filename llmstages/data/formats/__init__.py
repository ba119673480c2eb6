"""Rows of the usual chat, preference and problem data sets, as the message lists of tables.py.

A row names its format by its fields, so most files need no option. Whatever cannot be converted raises ``InvalidRow``
with a rule and a reason; what is left out of a usable row (reasoning, trailing questions) is counted in ``left_out``.
Left out on purpose: images and audio.
"""

from llmstages.data.formats.dialogues import DIALOGUES, conversation, detect, dialogue
from llmstages.data.formats.oasst import gathered
from llmstages.data.formats.preferences import preference
from llmstages.data.formats.problems import problem
from llmstages.data.formats.turns import InvalidRow, Message, Row, as_messages, hh, turns

__all__ = [
    "DIALOGUES",
    "Message",
    "Row",
    "InvalidRow",
    "as_messages",
    "conversation",
    "detect",
    "dialogue",
    "gathered",
    "hh",
    "preference",
    "problem",
    "turns",
]
