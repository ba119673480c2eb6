"""Which texts a tokenizer turns into control tokens, and how to encode a text so that it makes none.

``split_special_tokens`` is not enough for tokenizers of others: marks that were added as no special tokens (Qwen's <tool_call>) stay
whole, and a model whose own vocabulary holds a mark (SentencePiece's control pieces) makes it from text. Both are seen to here.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Sequence
from typing import Any

from llmstages.core.errors import StageError

PAIRS = (
    "<>",
    "[]",
    "\uff5c\uff5c",
    "\u25c1\u25b7",
)  # what begins and ends a mark that was added as no special token
FORMS = ("{}", " {}", "a{}b", "a {} b", "{0}{0}", "\n{}\n")


def structural(token: str) -> bool:
    """Whether an added token is a mark (``<tool_call>``, ``[INST]``), not a word or a run of blanks that somebody added."""
    return len(token) > 2 and token[0] + token[-1] in PAIRS


class Marks:
    """The marks of a tokenizer.

    ids: text -> (id, lstrip, rstrip). found: an expression for them in a text. leaks: ids of marks that the plain way makes of texts.
    """

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import Tokenizer

        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.ids = {
            str(token): (id, token.lstrip, token.rstrip)
            for id, token in added.items()
            if token.special or structural(str(token))
        }
        texts = sorted(self.ids, key=len, reverse=True)
        alone = {str(token) for token in added.values() if token.single_word}
        self.found = re.compile(
            "|".join(rf"(?<!\w){re.escape(t)}(?!\w)" if t in alone else re.escape(t) for t in texts)
            or r"(?!)"
        )
        self.inside = re.compile(
            "|".join(map(re.escape, texts)) or r"(?!)", re.IGNORECASE
        )  # a template may change the case of a content
        self.longest = max(map(len, texts), default=0)
        self.heads = {t[:n].casefold() for t in texts for n in range(1, len(t))}
        self.tails = {t[n:].casefold() for t in texts for n in range(1, len(t))}
        self.wholes = [t.casefold() for t in texts]
        self.firsts, self.lasts = (
            {t[:1].casefold() for t in texts},
            {t[-1:].casefold() for t in texts},
        )
        self.tokenizer, engine = (
            weakref.ref(tokenizer),
            getattr(tokenizer, "backend_tokenizer", None),
        )
        self.bare: Any = None
        if engine is not None and any(
            not token.special and structural(str(token)) for token in added.values()
        ):
            told = json.loads(engine.to_str())
            kept = [
                one
                for one in told["added_tokens"]
                if not one["special"] and not structural(one["content"])
            ]
            self.bare = Tokenizer.from_str(json.dumps({**told, "added_tokens": kept}))
        self.leaks: frozenset[int] = frozenset()
        control = {id for text, (id, _, _) in self.ids.items() if text != tokenizer.unk_token}
        probes = [form.format(text) for text in texts for form in FORMS]
        self.leaks = frozenset(control & {id for ids in self.plain(probes) for id in ids})

    def edges(self, text: str) -> tuple[bool, bool]:
        """Whether a text begins with the end of a mark or is the inside of one, and whether it ends with the beginning of one."""
        begin, end = text[: self.longest].casefold(), text[-self.longest :].casefold()
        tail = any(c in begin for c in self.lasts) and any(
            begin[:n] in self.tails for n in range(1, len(begin) + 1)
        )
        head = any(c in end for c in self.firsts) and any(
            end[-n:] in self.heads for n in range(1, len(end) + 1)
        )
        return tail or (
            0 < len(text) < self.longest and any(begin in whole for whole in self.wholes)
        ), head

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts, none of them a mark's."""
        if not texts:
            return []
        tokenizer = self.tokenizer()
        made = (
            [one.ids for one in self.bare.encode_batch(list(texts), add_special_tokens=False)]
            if self.bare is not None
            else tokenizer(
                list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False
            )["input_ids"]
        )
        return (
            [
                ids if self.leaks.isdisjoint(ids) else self._cut(text)
                for text, ids in zip(texts, made, strict=True)
            ]
            if self.leaks
            else made
        )

    def places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """(ids of one text, for each the characters it stands for: from, to)."""
        if self.bare is not None:
            done = self.bare.encode(text, add_special_tokens=False)
            ids, at = done.ids, done.offsets
        else:
            made = self.tokenizer()(
                text,
                add_special_tokens=False,
                split_special_tokens=True,
                return_offsets_mapping=True,
                verbose=False,
            )
            ids, at = made["input_ids"], made["offset_mapping"]
        if self.leaks.isdisjoint(ids):
            return ids, at
        ids, at, start = [], [], 0
        for part in self._parts(text):
            some, where = self.places(part)
            ids, at, start = (
                [*ids, *some],
                [*at, *((a + start, b + start) for a, b in where)],
                start + len(part),
            )
        return ids, at

    def _parts(self, text: str) -> list[str]:
        """The text cut inside of its marks, where no token can span."""
        cuts = [
            0,
            *(one.start() + 1 for one in self.inside.finditer(text) if len(one.group()) > 1),
            len(text),
        ]
        if len(cuts) == 2:
            raise StageError(
                f"this tokenizer makes a control token of a text that does not spell one: {text[:60]!r}. Take another tokenizer, or take the text out"
            )
        return [text[a:b] for a, b in zip(cuts, cuts[1:]) if a < b]

    def _cut(self, text: str) -> list[int]:
        return [id for ids in self.plain(self._parts(text)) for id in ids]


_known: weakref.WeakKeyDictionary[Any, tuple[Any, Marks]] = (
    weakref.WeakKeyDictionary()
)  # an attribute would be pickled


def special_tokens_of(tokenizer: Any) -> Marks:
    """The marks of a tokenizer, remembered while its added tokens stay as they are."""
    state = tuple(
        (id, str(token), token.special)
        for id, token in getattr(tokenizer, "added_tokens_decoder", {}).items()
    )
    known = _known.get(tokenizer)
    if known is None or known[0] != state:
        known = _known[tokenizer] = state, Marks(tokenizer)
    return known[1]
