"""How usual the words of a text are, compared with a reference.

Lists of names and garbled text stand out on one side, text that repeats a few words on the other.

Source: CCNet (Wenzek et al. 2020, section 3.4) keeps what a language model of Wikipedia finds
likely; Dolma and datatrove use the frequencies of single words, as here. Word order does not
matter, and no model is shipped: give a file of counts, or texts to count in. The unit is bits per
word (cross-entropy); 2 to its power is the perplexity.
"""

from __future__ import annotations

import dataclasses as dc
import glob
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import option
from llmstages.data.filtering import Check, Document, Rules
from llmstages.data.words import Splitter

BLOCK = 4096  # lines of the reference counted at a time


class UnigramEntropy(Rules):
    """Drops documents whose words are too rare, or too common, for the reference."""

    @dc.dataclass(frozen=True)
    class Config:
        counts: str = option(
            "", "a file of the reference: a word, a tab and its count a line", file=True
        )
        texts: str = option(
            "",
            "files (glob) to count words in instead: .txt, or .jsonl with a field text",
            file=True,
        )
        min_bits: float = option(
            0.0, "least cross-entropy of the words under the reference; unit: bits per word", ge=0
        )
        max_bits: float = option(
            16.0,
            "greatest cross-entropy; English prose has 9 to 12, counted in a similar text",
            ge=0,
        )

    version = "1"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if bool(config.counts) == bool(config.texts):
            raise StageError(
                "unigram_entropy needs a reference: give either unigram_entropy.counts=FILE (a"
                " word, a tab and its count a line) or unigram_entropy.texts=FILES to count"
                " words in"
            )
        self._known: Any = None

    def rules(self, document: Document) -> Iterator[Check]:
        import numpy as np

        if self._known is None:
            self._known, self._bits = self._reference(document.splitter)
        hashes = document.feature("hashes")
        hashes = hashes[hashes != 0]
        at = np.searchsorted(self._known, hashes)
        at = np.minimum(at, len(self._known) - 1)
        # The last entry belongs to unknown words.
        bits = np.where(self._known[at] == hashes, self._bits[at], self._bits[-1])
        value = float(bits.mean()) if len(bits) else 0.0
        yield Check("too_common", value, least=self.config.min_bits, unit="bits per word")
        yield Check("too_rare", value, most=self.config.max_bits, unit="bits per word")

    def _reference(self, splitter: Splitter) -> tuple[Any, Any]:
        """Known words (hashes, ascending) and the bits of each.

        The bits have one more entry for all unknown words (add-one smoothing).
        """
        import numpy as np

        known, total = np.zeros(0, np.uint32), np.zeros(0)
        counted = self._counted()
        block = list(islice(counted, BLOCK))
        while block:
            documents = [Document("", "", text, splitter=splitter) for text, _ in block]
            parts = [document.feature("hashes") for document in documents]
            counts = [count for _, count in block]
            hashes = np.concatenate([known, *parts])
            weights = np.concatenate([total, np.repeat(counts, list(map(len, parts)))])
            is_word = hashes != 0
            known, where = np.unique(hashes[is_word], return_inverse=True)
            total = np.bincount(where, weights[is_word], len(known))
            block = list(islice(counted, BLOCK))
        if not len(known):
            raise StageError(
                f"unigram_entropy found no word in {self.config.counts or self.config.texts}"
            )
        share = np.append(total + 1, 1.0) / (total.sum() + len(total) + 1)
        return known, -np.log2(share)

    def _counted(self) -> Iterator[tuple[str, float]]:
        """(word, count) of the file of counts, or (text, 1) of the texts."""
        given = self.config.counts or self.config.texts
        # pathlib globs below a folder only, and the pattern may be absolute.
        pattern = str(Path(given).expanduser())
        files = [
            Path(name)
            for name in sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
            if Path(name).is_file()
        ]
        if not files:
            raise StageError(f"unigram_entropy: there is no file {given}")
        parse = _parse_count if self.config.counts else _parse_text
        wanted = "a JSON object with a field text"
        if self.config.counts:
            wanted = "a word, a tab and its count"
        for file in files:
            with file.open(encoding="utf-8", errors="replace") as stream:
                for number, line in enumerate(stream, 1):
                    try:
                        yield from parse(line, file.suffix)
                    except (ValueError, KeyError, TypeError) as error:
                        raise StageError(
                            f"{file}, line {number}: not {wanted} ({type(error).__name__}: {error})"
                        ) from error


def _parse_count(line: str, suffix: str) -> Iterator[tuple[str, float]]:
    if line.strip():
        word, count = line.rstrip("\n").split("\t")
        yield word, float(count)


def _parse_text(line: str, suffix: str) -> Iterator[tuple[str, float]]:
    if suffix == ".jsonl" and line.strip():
        line = str(json.loads(line)["text"])
    yield line, 1.0
