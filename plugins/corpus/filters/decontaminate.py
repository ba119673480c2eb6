"""Leave out documents that share a run of words with what a model will be evaluated on.

Source: the n-gram overlap of GPT-3 (Brown et al. 2020, appendix C) with the choices of FineWeb's
tools: 12-grams of words in lower case without punctuation; runs inside an answer count, runs that
begin in the question and end in the answer, and runs inside a question. FineWeb's tools leave the
last out, since a page may ask the same thing; but answers are often shorter than a run, and
nothing would be found then. What to look for comes from the steps wired as ``evaluations``
(problems, dialogues, preferences) and from files.
"""

from __future__ import annotations

import dataclasses as dc
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import option
from llmstages.data.filtering import Check, Document, Rules
from llmstages.data.words import Splitter

QUESTION_KEYS = ("prompt", "question", "query", "input")
ANSWER_KEYS = ("answer", "label", "target", "output", "text", "completion", "solution", "chosen")
MIX = 0x9E3779B97F4A7C15


@dc.dataclass(frozen=True)
class Text:
    """A question with its answer, either may be empty; name: where it stands, as step:row."""

    name: str
    question: str
    answer: str


class Decontaminate(Rules):
    """Drops documents that share a run of words with an evaluation; names words and problem."""

    @dc.dataclass(frozen=True)
    class Config:
        path: str = option(
            "",
            "a file of more texts to look for: .jsonl with prompt (or question) and answer (or"
            " text), or .txt, one text a line",
            file=True,
        )
        ngram: int = option(12, "words in a row that must be equal", ge=1)
        answers: bool = option(True, "look for runs of words inside an answer")
        overlaps: bool = option(
            True, "look for runs that begin in a question and end in its answer"
        )
        questions: bool = option(True, "look for runs inside a question")

    wants = "evaluations"
    version = "2"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._folders: tuple[Path, ...] = ()
        self._wanted: _Wanted | None = None

    def open(self, folders: Sequence[Path]) -> None:
        """folders: of the artifacts wired to ``evaluations``."""
        self._folders = tuple(Path(folder) for folder in folders)

    def rules(self, document: Document) -> Iterator[Check]:
        """The value is the number of n-grams that the document shares."""
        if self._wanted is None:
            self._wanted = self._gather(document.splitter)
        hits, shown = self._wanted.find(document)
        yield Check(
            "",
            hits,
            most=0,
            unit=f"runs of {self.config.ngram} words of an evaluation",
            shown=shown,
        )

    def _gather(self, splitter: Splitter) -> _Wanted:
        c = self.config
        if not self._folders and not c.path:
            raise StageError(
                "decontaminate has nothing to look for: wire the steps that evaluate to the input"
                " evaluations of its corpus step (steps.corpus.evaluations=[problems]), or give"
                " decontaminate.path=FILE"
            )
        import numpy as np

        names: list[str] = []
        grams = [np.zeros((0, c.ngram), np.uint32)]
        name_numbers: list[int] = []
        for text in self._texts():
            question = _words(text.question, splitter)
            answer = _words(text.answer, splitter)
            parts = []
            if c.answers:
                parts.append(answer)
            if c.overlaps and len(question) and len(answer):
                question_end = question[max(0, len(question) - c.ngram + 1) :]
                parts.append(np.concatenate([question_end, answer[: c.ngram - 1]]))
            if c.questions:
                parts.append(question)
            for part in parts:
                if len(part) >= c.ngram:
                    grams.append(np.lib.stride_tricks.sliding_window_view(part, c.ngram))
                    name_numbers += [len(names)] * len(grams[-1])
            names.append(text.name)
        if not name_numbers:
            advice = "" if c.questions else ", or questions=true where the answers are short"
            raise StageError(
                f"decontaminate found no run of {c.ngram} words in the {len(names)} texts it "
                f"should look for; use a smaller ngram{advice}"
            )
        return _Wanted(names, np.concatenate(grams), np.array(name_numbers), c.ngram)

    def _texts(self) -> Iterator[Text]:
        for folder in self._folders:
            yield from _artifact(folder)
        if self.config.path:
            yield from _file(Path(self.config.path).expanduser())


class _Wanted:
    """The n-grams to look for, sorted by a hash.

    A bit table in front of them excludes nearly all n-grams of a text at once.
    """

    def __init__(self, names: Sequence[str], grams: Any, numbers: Any, size: int) -> None:
        import numpy as np

        self._names, self._size = names, size
        keys = _hashes(grams.T)
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._grams = np.ascontiguousarray(grams[order])
        self._numbers = numbers[order]
        # 16 bits or more for each n-gram, so that nearly no other n-gram passes the table.
        bits = min(max(int(16 * len(keys)).bit_length(), 12), 28)
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, bool)
        self._maybe[keys >> self._shift] = True

    def find(self, document: Document) -> tuple[int, str]:
        """How many n-grams of the document are looked for, and the first one with its source."""
        import numpy as np

        hashes = document.feature("hashes")
        places = np.flatnonzero(hashes)
        words = hashes[places]
        count = len(words) - self._size + 1
        if count < 1:
            return 0, ""
        keys = _hashes([words[i : i + count] for i in range(self._size)])
        starts = np.flatnonzero(self._maybe[keys >> self._shift])
        # Equal hashes are compared word by word, so a collision is not a hit.
        at = np.minimum(np.searchsorted(self._keys, keys[starts]), len(self._keys) - 1)
        same = self._keys[at] == keys[starts]
        starts, at = starts[same], at[same]
        exact = (words[starts[:, None] + np.arange(self._size)] == self._grams[at]).all(axis=1)
        starts, at = starts[exact], at[exact]
        if not len(starts):
            return 0, ""
        first = starts[0]
        run = " ".join(document.words[place] for place in places[first : first + self._size])
        shown = f"{self._names[self._numbers[at[0]]]}: {run}"
        if len(starts) > 1:
            shown += f" (and {len(starts) - 1} more)"
        return len(starts), shown


def _hashes(columns: Sequence[Any]) -> Any:
    """A hash (uint64) of each n-gram, from its first words, second words and so on (uint32)."""
    import numpy as np

    keys = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        keys *= np.uint64(MIX)
        keys += column
    keys ^= keys >> np.uint64(32)
    return keys * np.uint64(0xD6E8FEB86659FD93)


def _words(text: str, splitter: Splitter) -> Any:
    """Hashes of the words that have a letter or digit."""
    hashes = Document("", "", text, splitter=splitter).feature("hashes")
    return hashes[hashes != 0]


def _artifact(folder: Path) -> Iterator[Text]:
    """The texts of a problems, dialogues or preferences artifact."""
    from llmstages.data import tables

    step = re.sub(r"-[0-9a-f]{8,}$", "", folder.name)  # as the store names it: step-fingerprint
    for number, row in enumerate(tables.load(folder / "data")):
        yield from _texts(row, f"{step}:{number}")


def _file(path: Path) -> Iterator[Text]:
    """The texts of a .jsonl or .txt file."""
    if not path.is_file():
        raise StageError(
            f"decontaminate.path={path}: there is no such file; it has one text (.txt) or one "
            "JSON object (.jsonl) per line"
        )
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        name = f"{path.name}:{number}"
        if path.suffix not in (".jsonl", ".json"):
            yield Text(name, "", line)
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise StageError(
                f"decontaminate.path={path}: line {number + 1} is not JSON ({error}); "
                "write one object per line, or name the file .txt"
            ) from error
        yield from _texts(row if isinstance(row, dict) else {"text": str(row)}, name)


def _texts(row: Mapping[str, Any], name: str) -> Iterator[Text]:
    """Every answer in a row, with what comes before it."""
    if row.get("messages"):
        turns = row["messages"]
        for i, turn in enumerate(turns):
            if turn["role"] == "assistant":
                yield Text(name, _plain(turns[:i]), turn["content"] or "")
        return
    question = next((_plain(row[key]) for key in QUESTION_KEYS if row.get(key)), "")
    answers = [_plain(row[key]) for key in ANSWER_KEYS if row.get(key)]
    for answer in answers or [""]:
        yield Text(name, question, answer)


def _plain(value: Any) -> str:
    """A string as it is, messages as their contents."""
    if not isinstance(value, (list, tuple)):
        return str(value)
    contents = []
    for turn in value:
        if isinstance(turn, Mapping):
            contents.append(str(turn.get("content") or ""))
        else:
            contents.append(str(turn))
    return "\n".join(contents)
