"""Rows of the usual chat, preference and problem data sets as messages.

A row names its format by its fields, so most files need no option. A row that cannot be converted
raises ``InvalidRow`` with a rule and a reason. What is left out of a usable row (reasoning, a
question at the end) is counted in ``left_out``. Images and audio are left out on purpose.
"""

from llmstages.data.formats.dialogues import DIALOGUES, conversation, detect, dialogue
from llmstages.data.formats.oasst import gather_trees
from llmstages.data.formats.preferences import preference
from llmstages.data.formats.problems import problem
from llmstages.data.formats.reasoning import REASONING, REASONING_HELP, treat_reasoning
from llmstages.data.formats.turns import InvalidRow, Message, Row, as_messages, hh, turns

__all__ = [
    "DIALOGUES",
    "REASONING",
    "REASONING_HELP",
    "InvalidRow",
    "Message",
    "Row",
    "as_messages",
    "conversation",
    "detect",
    "dialogue",
    "gather_trees",
    "hh",
    "preference",
    "problem",
    "treat_reasoning",
    "turns",
]
