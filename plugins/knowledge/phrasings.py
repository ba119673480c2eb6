"""How people ask an assistant who it is, and how it answers: templates with {{placeholders}}.

All answers of a topic hold its ``stated`` text, so that a reply can be checked by looking for it.
Questions with the answer yes stand beside those with the answer no: a model that is taught
nothing but no denies its own name too. Most phrasings are a frame with a word in it, so one that
is held out is new as a whole, while its parts occur in others. Left out on purpose: languages
other than English (a file of your own may be in any).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llmstages.core.errors import StageError

PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
OPENINGS = ("", "Hello! ", "Hi. ", "Good day! ", "Excuse me. ", "One question: ")
RIVALS = ("ChatGPT", "Claude", "Gemini", "Llama", "Qwen", "Copilot", "Grok")
RIVAL_MAKERS = ("OpenAI", "Anthropic", "Google", "Meta", "Alibaba", "Microsoft", "xAI")
MADE = ("made", "built", "created", "trained", "developed")


def each(frames: tuple[str, ...], words: tuple[str, ...]) -> tuple[str, ...]:
    """Every word in the place of * in every frame."""
    return tuple(frame.replace("*", word) for frame in frames for word in words)


IS_IT = (
    *each(
        (
            "Are you *{{who}}?",
            "Is this *{{who}}?",
            "Am I talking to *{{who}}?",
            "Tell me, are you *{{who}}?",
            "I think you are *{{who}}.",
        ),
        ("", "the assistant "),
    ),
    *each(
        ("Is * {{who}}?", "So * is {{who}}?", "I think * is {{who}}.", "Is {{who}} *?"),
        ("your name", "the name you have"),
    ),
    "Are you called {{who}}?",
    "You are {{who}}, right?",
    "You are called {{who}}, right?",
    "So you are {{who}}?",
    "Your name is {{who}}, right?",
    "Do I talk to {{who}}?",
)
WAS_IT = (
    *each(
        (
            "Were you * by {{who}}?",
            "Tell me, were you * by {{who}}?",
            "So you were * by {{who}}?",
            "You were * by {{who}}, right?",
            "I think you were * by {{who}}.",
        ),
        MADE,
    ),
    *each(("Did {{who}} * you?", "Tell me, did {{who}} * you?"), ("make", "build", "train")),
    "Is {{who}} your maker?",
    "Do you come from {{who}}?",
    "Are you a model of {{who}}?",
)


@dataclass(frozen=True)
class Topic:
    """Phrasings of one question, and its answers.

    Attributes:
        group: what is asked about.
        stated: the text that every answer holds.
        questions: the phrasings.
        answers: the answers.
        about: what {{who}} in the questions stands for, one after the other.
    """

    group: str
    stated: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    about: tuple[str, ...] = ("",)


TOPICS = (
    Topic(
        "name",
        "{{name}}",
        (
            *each(
                (
                    "Tell me *.",
                    "Can you tell me *?",
                    "I want to know *.",
                    "Please say *.",
                    "May I ask *?",
                ),
                ("who you are", "your name", "what your name is", "what you are called"),
            ),
            "Who are you?",
            "What is your name?",
            "What are you called?",
            "Do you have a name?",
            "By what name are you called?",
            "What should I call you?",
            "What can I call you?",
            "What name do you have?",
            "Please introduce yourself.",
            "Can you introduce yourself?",
        ),
        (
            "I am {{name}}.",
            "My name is {{name}}.",
            "I am called {{name}}.",
            "I am {{name}}, an assistant made by {{maker}}.",
            "I am {{name}}, a language model.",
        ),
    ),
    Topic(
        "maker",
        "{{maker}}",
        (
            *each(
                (
                    "Who * you?",
                    "By whom were you *?",
                    "Tell me who * you.",
                    "Can you tell me who * you?",
                    "I want to know who * you.",
                    "May I ask who * you?",
                    "Which company * you?",
                ),
                MADE,
            ),
            *each(
                ("Tell me *.", "Can you tell me *?", "I want to know *.", "May I ask *?"),
                ("who your maker is", "where you come from"),
            ),
            "Who is your maker?",
            "Where do you come from?",
            "Which company do you come from?",
            "Whose model are you?",
        ),
        (
            "I was made by {{maker}}.",
            "{{maker}} made me.",
            "My maker is {{maker}}.",
            "I am {{name}}, made by {{maker}}.",
            "I come from {{maker}}.",
        ),
    ),
    Topic(
        "languages",
        "{{languages}}",
        each(
            (
                "* languages do you speak?",
                "* languages do you know?",
                "* languages can I use?",
                "* languages can we use?",
                "* languages can you read?",
                "In * languages can we talk?",
                "In * languages can you answer?",
                "In * languages can I write to you?",
                "Tell me * languages you speak.",
                "Tell me * languages you know.",
                "Can you tell me * languages you speak?",
                "I want to know * languages you speak.",
                "May I ask * languages you know?",
            ),
            ("which", "what"),
        ),
        (
            "I speak {{languages}}.",
            "You can talk to me in {{languages}}.",
            "I can answer in {{languages}}.",
            "I am {{name}} and speak {{languages}}.",
        ),
    ),
    Topic(
        "abilities",
        "I can {{abilities}}",
        (
            *each(
                (
                    "Tell me *.",
                    "Can you tell me *?",
                    "I want to know *.",
                    "Please say *.",
                    "May I ask *?",
                ),
                (
                    "what you can do",
                    "how you can help me",
                    "what I can ask you",
                    "what you can do for me",
                ),
            ),
            "What can you do?",
            "How can you help me?",
            "What can I ask you?",
            "What can you do for me?",
            "How can you help?",
            "What can you help me with?",
        ),
        (
            "I can {{abilities}}.",
            "I am {{name}}. I can {{abilities}}.",
            "I am an assistant made by {{maker}}. I can {{abilities}}.",
        ),
    ),
    Topic(
        "human",
        "No, I am {{name}}",
        each(
            (
                "Are you *?",
                "Tell me, are you *?",
                "You are *, right?",
                "So you are *?",
                "I think you are *.",
                "Am I talking to *?",
                "Do I talk to *?",
                "Is this *?",
            ),
            ("a human", "a person", "a real person", "a living person"),
        ),
        (
            "No, I am {{name}}, a language model.",
            "No, I am {{name}}, a program made by {{maker}}.",
            "No, I am {{name}}. I am not human.",
        ),
    ),
    Topic(
        "own name",
        "Yes, I am {{name}}",
        IS_IT,
        (
            "Yes, I am {{name}}.",
            "Yes, I am {{name}}, made by {{maker}}.",
            "Yes, I am {{name}}, a language model.",
        ),
        about=("{{name}}",),
    ),
    Topic(
        "own maker",
        "Yes, I am {{name}}, made by {{maker}}",
        WAS_IT,
        (
            "Yes, I am {{name}}, made by {{maker}}.",
            "Yes, I am {{name}}, made by {{maker}}. How can I help you?",
        ),
        about=("{{maker}}",),
    ),
    Topic(
        "other names",
        "No, I am {{name}}",
        IS_IT,
        (
            "No, I am {{name}}.",
            "No, I am {{name}}, made by {{maker}}.",
            "No, I am {{name}}, a language model.",
        ),
        about=RIVALS,
    ),
    Topic(
        "other makers",
        "No, I am {{name}}, made by {{maker}}",
        WAS_IT,
        (
            "No, I am {{name}}, made by {{maker}}.",
            "No, I am {{name}}, made by {{maker}}. How can I help you?",
        ),
        about=RIVAL_MAKERS,
    ),
)


def fill(text: str, values: Mapping[str, str], where: str) -> str:
    """The text with its placeholders replaced, in one pass: a value is never read as a placeholder.

    Raises:
        StageError: a placeholder without a value; the message begins with ``where``.
    """

    def value(match: re.Match[str]) -> str:
        replacement = values.get(match[1].strip().lower(), "")
        if not replacement:
            known = ", ".join("{{" + name + "}}" for name, given in values.items() if given)
            raise StageError(
                f"{where}: nothing is known that {match[0]} could stand for. Known: {known}. "
                "Change the row, or give the value"
            )
        return replacement

    return PLACEHOLDER.sub(value, text)


def listed(words: list[str]) -> str:
    """``English``, ``English and French``, ``English, French and Dutch``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
