"""A conversation with a model whose replies are given."""

from __future__ import annotations

from types import SimpleNamespace

from llmstages.serve import chat_session
from llmstages.text import chat_format
from tests.tiny import control_ids


class Script:
    """Stands for a model: it gives its replies through the streamer, as generate() would."""

    device = "cpu"
    generation_config = SimpleNamespace(eos_token_id=None)

    def __init__(self, *replies: list[int]) -> None:
        self.replies = list(replies)
        self.prompts: list[list[int]] = []

    def generate(self, input_ids, streamer, **settings):
        import torch

        self.prompts.append(input_ids[0].tolist())
        streamer.put(input_ids)
        for token in self.replies.pop(0):
            streamer.put(torch.tensor([token]))
        streamer.end()


def scripted(last, *replies, context=128, history=True):
    """A session with the tools of the run and a model that gives these replies.

    A reply is a list of texts, where the text of a control token stands for the token.
    """
    session = chat_session.open_session(last.steps["helper"], history)
    session.context = context
    marks = control_ids(session.tokenizer)
    scripts = []
    for texts in replies:
        ids = []
        for text in texts:
            if text in marks:
                ids.append(marks[text])
            else:
                ids += chat_format.encode_texts(session.tokenizer, [text])[0]
        scripts.append(ids)
    session.model = Script(*scripts)
    return session


def ask(session, text):
    """What is shown of the reply: kind -> text."""
    shown: dict[str, str] = {}

    def show(what, part):
        shown[what] = shown.get(what, "") + part

    session.reply(text, show)
    return shown
