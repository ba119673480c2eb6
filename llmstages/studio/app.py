"""The application of the studio: the views' routes, and the files of the page."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmstages.pipeline import history
from llmstages.pipeline.history import PastRun
from llmstages.serve import openai_api
from llmstages.serve.pool import ModelPool

if TYPE_CHECKING:
    from starlette.applications import Starlette

STATIC = Path(__file__).parent / "static"
# Modules of this folder; each has `routes(studio)`. The page lists its views in static/app.js.
VIEWS = (
    "runs",
    "chat",
    "tokenizers",
    "votes",
    "dialogues",
    "next_token",
    "inside",
    "forward_pass",
    "trace",
    "lineage",
)


@dataclass
class Studio:
    """What the views share.

    Attributes:
        run: the run that is looked at.
        runs: the folder of all runs. What people write in the studio is kept beside it.
        folder: of the run in it; None where results of the store are looked at without a run.
        pool: its models.
    """

    run: PastRun
    runs: Path
    folder: Path | None = None
    pool: ModelPool = field(init=False)
    _tokenizers: dict[Path, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pool = ModelPool(self.run)
        folder = Path(self.run.where)
        if self.folder is None and folder.parent.resolve() == self.runs.resolve():
            self.folder = folder

    def reload(self) -> PastRun:
        """The run as it is now: a running one has more steps from time to time."""
        if self.folder is not None:
            self.run = history.run_in(self.folder, self.run)
            self.pool.run = self.run
        return self.run

    @property
    def notes(self) -> Path:
        """The folder of what people write here: votes and dialogues."""
        return self.runs.parent / "studio"

    def tokenizer(self, name: str) -> Any:
        """The tokenizer of a step that made a tokenizer or a model.

        Raises:
            StageError: the run has no such step.
        """
        from transformers import AutoTokenizer

        path = history.find_step(name, self.run, "tokenizer").path
        if path not in self._tokenizers:
            self._tokenizers[path] = AutoTokenizer.from_pretrained(path)
        return self._tokenizers[path]


def make_app(studio: Studio) -> Starlette:
    """The application of a studio, still without its guard (serve/guard.py)."""
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    routes = openai_api.routes(studio.pool)
    for view in VIEWS:
        module = importlib.import_module(f"llmstages.studio.{view}")
        routes += module.routes(studio)
    # Links that lead out of the folder are not followed.
    routes.append(Mount("/", StaticFiles(directory=STATIC, html=True, follow_symlink=False)))
    return Starlette(routes=routes)
