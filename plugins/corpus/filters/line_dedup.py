"""Lines that occur on many pages (menus, licences, slogans) are removed from all of them.

Not in the default list: it also removes what a model would learn to recite, which is the point of
the recitation experiment (train with and without it). Source of the idea: C4 (Raffel et al. 2020,
section 2.2) and CCNet (Wenzek et al. 2020, section 3.1). Lines are compared by 64-bit digests, in
as many rounds as it takes to count a bounded number at a time.
"""

from __future__ import annotations

import dataclasses as dc
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from llmstages.core.stage import option
from llmstages.data.filtering import Document, Drop, Edit, Signatures, Verdict

ROUND = 1 << 24  # lines counted at a time: 128 MB of digests


class LineDedup:
    """Removes every line that occurs in more than ``max_documents`` documents."""

    @dc.dataclass(frozen=True)
    class Config:
        max_documents: int = option(
            3,
            "most documents a line may occur in; lines in more of them are removed everywhere",
            ge=1,
        )
        min_words: int = option(1, "leave shorter lines alone; unit: words between blanks", ge=0)

    kind = "group"
    edits = True
    version = "2"

    def __init__(self, config: Config) -> None:
        self.config = config

    def sign(self, documents: Sequence[Document]) -> list[bytes]:
        """8 bytes for each different line that is long enough."""
        signatures = []
        for document in documents:
            digests = map(self._digest, document.text.split("\n"))
            signatures.append(b"".join(dict.fromkeys(filter(None, digests))))
        return signatures

    def _digest(self, line: str) -> bytes:
        """Of a line without the blanks around it; nothing where it is too short."""
        line = line.strip()
        if not line or len(line.split(None, self.config.min_words)) < self.config.min_words:
            return b""
        return hashlib.blake2b(line.encode("utf-8", "replace"), digest_size=8).digest()

    def compare(self, signed: Signatures) -> Any:
        """The digests (uint64, ascending) of the lines that too many documents have."""
        import numpy as np

        most = self.config.max_documents
        rounds = sum(map(len, signed.signatures)) // (8 * ROUND) + 1
        frequent = []
        for number in range(rounds):
            blocks = [np.zeros(0, np.uint64)]
            for block in _blocks(signed.signatures):
                blocks.append(block[block % np.uint64(rounds) == number])
            digests = np.concatenate(blocks)
            digests.sort()
            # The digest of a line in more documents equals the one ``most`` places before it.
            repeats = digests[most:] == digests[: len(digests) - most]
            frequent.append(np.unique(digests[most:][repeats]))
        return np.sort(np.concatenate(frequent))

    def judge(self, documents: Sequence[Document], finding: Any) -> list[Verdict]:
        return [self._edit(document, finding) for document in documents]

    def _edit(self, document: Document, frequent: Any) -> Verdict:
        import numpy as np

        if not len(frequent):
            return None
        lines = document.text.split("\n")
        # Short lines have an empty digest, so the joined digests are those of ``wanted``.
        digests = [self._digest(line) for line in lines]
        wanted = [i for i, digest in enumerate(digests) if digest]
        own = np.frombuffer(b"".join(digests), "<u8")
        places = np.minimum(np.searchsorted(frequent, own), len(frequent) - 1)
        removed = {wanted[i] for i in np.flatnonzero(frequent[places] == own)}
        if not removed:
            return None
        text = "\n".join(line for i, line in enumerate(lines) if i not in removed).strip()
        if not text:
            return Drop("empty", len(removed), "a line that few pages have")
        return Edit(text, len(removed))


def _blocks(signatures: Sequence[bytes], documents: int = 4096) -> Iterator[Any]:
    """The digests of some thousand documents at a time (uint64)."""
    import numpy as np

    for start in range(0, len(signatures), documents):
        end = min(start + documents, len(signatures))
        block = b"".join(signatures[i] for i in range(start, end))
        yield np.frombuffer(block, "<u8")
