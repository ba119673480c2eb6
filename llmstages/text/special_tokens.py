"""The control tokens of a tokenizer, and how to encode a text so that it contains none of them.

A control token is an added token that is special or looks like markup (``<tool_call>``). The option
``split_special_tokens`` of transformers does not protect against all of them. It keeps markup whole
that was added as ordinary tokens (Qwen), and it cannot prevent a model from building control tokens
that are entries of its own vocabulary (SentencePiece). This module handles both.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import Any

from llmstages.core.errors import StageError

Offsets = list[tuple[int, int]]
DELIMITERS = ("<>", "[]", "\uff5c\uff5c", "\u25c1\u25b7")  # first and last character of markup
PROBES = ("{}", " {}", "a{}b", "a {} b", "{0}{0}", "\n{}\n")  # surroundings of a control token
NO_MATCH = r"(?!)"


def is_markup(token: str) -> bool:
    """Whether an added token looks like markup (``<tool_call>``, ``[INST]``), not like a word."""
    return len(token) > 2 and token[0] + token[-1] in DELIMITERS


class SpecialTokens:
    """The control tokens of a tokenizer.

    ids: text of a control token -> (id, lstrip, rstrip). pattern: matches the control tokens of a
    text, as the tokenizer does. any_case_pattern: the same in any case, because a template may
    change the case of a content. leaks: ids of the control tokens that the model itself builds from
    text; ``encode`` avoids them, more slowly.
    """

    def __init__(self, tokenizer: Any) -> None:
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.ids: dict[str, tuple[int, bool, bool]] = {
            str(token): (id, token.lstrip, token.rstrip)
            for id, token in added.items()
            if token.special or is_markup(str(token))
        }
        # The longest alternative comes first, so that a token wins over its own beginning.
        texts = sorted(self.ids, key=len, reverse=True)
        whole_words = {str(token) for token in added.values() if token.single_word}
        self.pattern = re.compile(_alternatives(texts, whole_words))
        self.any_case_pattern = re.compile(_alternatives(texts), re.IGNORECASE)

        self._longest = max(map(len, texts), default=0)
        self._texts = [text.casefold() for text in texts]
        self._beginnings: set[str] = set()
        self._endings: set[str] = set()
        for text in texts:
            for place in range(1, len(text)):
                self._beginnings.add(text[:place].casefold())
                self._endings.add(text[place:].casefold())
        self._first_characters = {text[:1].casefold() for text in texts}
        self._last_characters = {text[-1:].casefold() for text in texts}

        self._tokenizer = weakref.ref(tokenizer)
        self._engine = _engine_without_markup(tokenizer)
        self.leaks: frozenset[int] = frozenset()  # encode() reads it, also while it is computed
        self.leaks = self._find_leaks(texts)

    def edges(self, text: str) -> tuple[bool, bool]:
        """Whether neighbors of a text could complete a control token: on its left, on its right.

        Left: the text begins with the end of a control token, or is the inside of one. Right: the
        text ends with the beginning of one. Case does not matter.
        """
        begin = text[: self._longest].casefold()
        end = text[-self._longest :].casefold()
        # Looking for single characters first rules out most texts, and is much cheaper.
        left = any(character in begin for character in self._last_characters) and any(
            begin[:length] in self._endings for length in range(1, len(begin) + 1)
        )
        right = any(character in end for character in self._first_characters) and any(
            end[-length:] in self._beginnings for length in range(1, len(end) + 1)
        )
        if not left and 0 < len(text) < self._longest:
            left = any(begin in token for token in self._texts)
        return left, right

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts; none of them is the id of a control token."""
        if not texts:
            return []
        rows = self._encode_batch(list(texts))
        if self.leaks:
            for index, ids in enumerate(rows):
                if not self.leaks.isdisjoint(ids):
                    rows[index] = self._encode_in_parts(texts[index])
        return rows

    def encode_with_offsets(self, text: str) -> tuple[list[int], Offsets]:
        """Ids of a text and, for each, the characters that it stands for: (start, end)."""
        if self._engine is not None:
            encoding = self._engine.encode(text, add_special_tokens=False)
            ids, offsets = encoding.ids, encoding.offsets
        else:
            encoding = self._live_tokenizer()(
                text,
                add_special_tokens=False,
                split_special_tokens=True,
                return_offsets_mapping=True,
                verbose=False,
            )
            ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
        if self.leaks.isdisjoint(ids):
            return ids, offsets

        ids, offsets = [], []
        part_start = 0
        for part in self._cut(text):
            part_ids, part_offsets = self.encode_with_offsets(part)
            ids += part_ids
            offsets += [(start + part_start, end + part_start) for start, end in part_offsets]
            part_start += len(part)
        return ids, offsets

    def _live_tokenizer(self) -> Any:
        tokenizer = self._tokenizer()
        assert tokenizer is not None, "the tokenizer was deleted while its control tokens are used"
        return tokenizer

    def _encode_batch(self, texts: list[str]) -> list[list[int]]:
        if self._engine is not None:
            encodings = self._engine.encode_batch(texts, add_special_tokens=False)
            return [encoding.ids for encoding in encodings]
        tokenizer = self._live_tokenizer()
        return tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)[
            "input_ids"
        ]

    def _encode_in_parts(self, text: str) -> list[int]:
        return list(chain.from_iterable(self.encode(self._cut(text))))

    def _cut(self, text: str) -> list[str]:
        """Parts of a text that contains control tokens: cut after the first character of each."""
        cuts = [
            match.start() + 1
            for match in self.any_case_pattern.finditer(text)
            if len(match.group()) > 1
        ]
        if not cuts:
            raise StageError(
                "this tokenizer makes a control token of a text that does not spell one: "
                f"{text[:60]!r}. Choose another tokenizer, or remove the text"
            )
        return [text[start:end] for start, end in pairwise([0, *cuts, len(text)]) if start < end]

    def _find_leaks(self, texts: Sequence[str]) -> frozenset[int]:
        """The control tokens that come out when texts that spell them are encoded."""
        probes = [probe.format(text) for text in texts for probe in PROBES]
        encoded = set(chain.from_iterable(self.encode(probes)))
        # The unknown token is what a model gives for any character that it lacks.
        unknown = self._live_tokenizer().unk_token
        control = {id for text, (id, _, _) in self.ids.items() if text != unknown}
        return frozenset(control & encoded)


def _alternatives(texts: Iterable[str], whole_words: Iterable[str] = ()) -> str:
    """A regular expression for any of some texts; those in ``whole_words`` match only as a word."""
    alternatives = []
    for text in texts:
        alternative = re.escape(text)
        if text in whole_words:
            alternative = rf"(?<!\w){alternative}(?!\w)"
        alternatives.append(alternative)
    return "|".join(alternatives) if alternatives else NO_MATCH


def _engine_without_markup(tokenizer: Any) -> Any:
    """The Rust tokenizer without control tokens; None where no markup was added to it."""
    from tokenizers import Tokenizer

    engine = getattr(tokenizer, "backend_tokenizer", None)
    added = getattr(tokenizer, "added_tokens_decoder", {})
    if engine is None or not any(not t.special and is_markup(str(t)) for t in added.values()):
        return None
    spec = json.loads(engine.to_str())
    spec["added_tokens"] = [
        token
        for token in spec["added_tokens"]
        if not token["special"] and not is_markup(token["content"])
    ]
    return Tokenizer.from_str(json.dumps(spec))


# A dictionary beside the tokenizers: an attribute of a tokenizer would be pickled with it.
_cache: weakref.WeakKeyDictionary[Any, tuple[Any, SpecialTokens]] = weakref.WeakKeyDictionary()


def special_tokens_of(tokenizer: Any) -> SpecialTokens:
    """The control tokens of a tokenizer, cached as long as its added tokens do not change."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    state = tuple((id, str(token), token.special) for id, token in added.items())
    cached = _cache.get(tokenizer)
    if cached is not None and cached[0] == state:
        return cached[1]
    special_tokens = SpecialTokens(tokenizer)
    _cache[tokenizer] = state, special_tokens
    return special_tokens
