"""Questions that a base model answers by continuing a text. They need no labels, only a corpus.

recitation  the first tokens of a passage; the answer is how it continues, by how often it occurs
names       the words before a name (a word with a capital inside a sentence), by how often the
            corpus mentions it
examples    "word : thing ;" lists in which only the examples show what belongs after the colon
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.plugins.evaluate import ngram_index
from llmstages.text import chat_format
from llmstages.text.messages import message

# (least number, name of the group)
COPIES = ((1, "1 copy"), (2, "2 to 3 copies"), (4, "4 to 15 copies"), (16, "16 or more copies"))
MENTIONS = ((2, "2 to 9 mentions"), (10, "10 to 99 mentions"), (100, "100 or more mentions"))
NAME = re.compile(r"(?:(?<=[^\W_] )|(?<=[^\W_], ))[^\W\d_]{3,}(?=[\s.,;:!?'’)])")
WORD = re.compile(r"(?<![^\s])[^\W\d_]{4,12}(?=[\s.,;])")
MAX_REMEMBERED = 200_000  # runs or names
MAX_BEFORE = 200  # characters that are shown before a name
MIN_BEFORE = 40
SHOTS = (0, 1, 2, 4)  # numbers of examples
COMMON_WORDS = 300  # of which lists are made
MIN_WORDS = 20  # of the common words; a corpus with fewer gives no lists


def question(task: str, group: str, prompt: str, answer: str, between: str = " ") -> dict[str, Any]:
    """One row, as in a problems artifact. between: the text between prompt and answer."""
    return {
        "task": task,
        "group": group,
        "prompt": [message("user", prompt)],
        "answer": answer,
        "style": "plain",
        "role": "test",
        "meta": json.dumps({"between": between}),
    }


def group_of(groups: Sequence[tuple[int, str]], count: int) -> str:
    """The last group whose least number ``count`` reaches; "" if it reaches none."""
    for least, name in reversed(groups):
        if count >= least:
            return name
    return ""


def recitations(
    shard: Any,
    tokenizer: Any,
    prompt_tokens: int,
    answer_tokens: int,
    per_group: int,
    most: int,
    rng: random.Random,
) -> list[dict[str, Any]]:
    """Passages that do not overlap, as prompts and the whole words that follow.

    Beginnings of documents are taken first: a base model has read these exactly so, after BOS, and
    never a passage from the middle.

    Args:
        shard: the tokens of the corpus.
        tokenizer: the tokenizer they were made with.
        prompt_tokens: length of a prompt.
        answer_tokens: tokens after it that the answer may take.
        per_group: questions in each group of ``COPIES``.
        most: so many tokens of the corpus are read, from its beginning.
        rng: draws the passages.
    """
    import numpy as np

    length = prompt_tokens + answer_tokens
    places, copies = ngram_index.count_runs(shard, length, most, MAX_REMEMBERED)
    order = list(range(len(places)))
    rng.shuffle(order)
    begins_document = np.isin(places, shard.starts)
    order.sort(key=lambda index: not begins_document[index])
    rows: list[dict[str, Any]] = []
    sizes: Counter[str] = Counter()
    # The corpus in blocks of one passage: with the blocks beside it free, none can overlap.
    taken_blocks: set[int] = set()
    for index in order:
        place = int(places[index])
        group = group_of(COPIES, int(copies[index]))
        block = place // length
        if sizes[group] >= per_group or {block - 1, block, block + 1} & taken_blocks:
            continue
        ids = shard.ids[place : place + length].tolist()
        row = _recitation(tokenizer, ids, prompt_tokens, group)
        if row:
            taken_blocks.add(block)
            sizes[group] += 1
            rows.append(row)
    return rows


def _recitation(
    tokenizer: Any, ids: list[int], prompt_tokens: int, group: str
) -> dict[str, Any] | None:
    """A passage as a question, if it can be asked in text."""
    prompt = chat_format.decode(tokenizer, ids[:prompt_tokens])
    whole = chat_format.decode(tokenizer, ids)
    if not whole.startswith(prompt):
        return None
    rest = whole[len(prompt) :]
    words = rest.strip().rsplit(maxsplit=1)
    answer = words[0] if words else ""  # without the last word, which may be cut
    if len(answer.split()) < 2:
        return None
    # If the prompt is encoded in another way, the model would be asked something else.
    if chat_format.encode_texts(tokenizer, [prompt])[0] != ids[:prompt_tokens]:
        return None
    blank = rest[: len(rest) - len(rest.lstrip())]
    return question("recitation by copies", group, prompt, answer, blank)


@dataclass(slots=True)
class _Name:
    """A name of the corpus: its mentions, those that can be asked for, and one of them."""

    mentions: int = 0
    usable: int = 0
    before: str = ""


def names(texts: Iterable[str], per_group: int, rng: random.Random) -> list[dict[str, Any]]:
    """For each name one mention, drawn at random, whose words before do not give it away.

    Args:
        texts: the corpus.
        per_group: questions in each group of ``MENTIONS``.
        rng: draws mentions and names.
    """
    found: dict[str, _Name] = {}
    for text in texts:
        for match in NAME.finditer(text):
            name = match[0]
            if not (name[0].isupper() and name[1:].islower()):
                continue
            entry = found.setdefault(name, _Name())
            entry.mentions += 1
            before = _words_before(text, match.start())
            if len(before) < MIN_BEFORE or name in before:
                continue
            entry.usable += 1
            # Reservoir sampling: each of the mentions so far is kept with the same chance.
            if rng.randrange(entry.usable) == 0:
                entry.before = before
        if len(found) > 2 * MAX_REMEMBERED:
            # Most names are rare ones; those that occur often come back after they are dropped.
            by_mentions = sorted(found.items(), key=lambda item: -item[1].mentions)
            found = dict(by_mentions[:MAX_REMEMBERED])
    rows: list[dict[str, Any]] = []
    sizes: Counter[str] = Counter()
    order = sorted(found)
    rng.shuffle(order)
    for name in order:
        entry = found[name]
        group = group_of(MENTIONS, entry.mentions)
        if group and entry.usable and sizes[group] < per_group:
            sizes[group] += 1
            rows.append(question("names by mentions", group, entry.before, name))
    return rows


def _words_before(text: str, place: int) -> str:
    """The whole words in the ``MAX_BEFORE`` characters before a place."""
    before = text[max(0, place - MAX_BEFORE) : place - 1]
    if place <= MAX_BEFORE:
        return before
    return before.partition(" ")[2]


def examples(texts: Iterable[str], per_shots: int, rng: random.Random) -> list[dict[str, Any]]:
    """Lists of common words of the corpus, ``per_shots`` for every number of examples.

    After the colon belongs the same word, the word with a capital, or the second of two.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word in WORD.findall(text) if word.islower())
    words = [word for word, _ in counts.most_common(COMMON_WORDS)]
    rows: list[dict[str, Any]] = []
    if len(words) < MIN_WORDS:
        return rows
    for shots in SHOTS:
        group = "1 example" if shots == 1 else f"{shots} examples"
        for number in range(per_shots):
            chosen = rng.sample(words, 2 * (shots + 1))
            pairs = [
                _pattern(number % 3, first, second)
                for first, second in zip(chosen[::2], chosen[1::2], strict=True)
            ]
            shown = "".join(f"{left} : {right} ; " for left, right in pairs[:-1])
            asked, answer = pairs[-1]
            rows.append(question("pattern from examples", group, f"{shown}{asked} :", answer))
    return rows


def _pattern(kind: int, first: str, second: str) -> tuple[str, str]:
    """What stands before the colon, and what belongs after it."""
    if kind == 0:
        return first, first
    if kind == 1:
        return first, first.capitalize()
    return f"{first} {second}", second
