"""The application of the studio: the views' routes, and the files of the page."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llmstages.pipeline.history import PastRun
from llmstages.serve import openai_api
from llmstages.serve.pool import ModelPool

if TYPE_CHECKING:
    from starlette.applications import Starlette

STATIC = Path(__file__).parent / "static"
# Modules of this folder; each has `routes(studio)`. The page lists its views in static/app.js.
VIEWS = ("runs",)


@dataclass
class Studio:
    """What the views share.

    Attributes:
        run: the run that is looked at.
        runs: the folder of all runs.
        pool: its models.
    """

    run: PastRun
    runs: Path
    pool: ModelPool = field(init=False)

    def __post_init__(self) -> None:
        self.pool = ModelPool(self.run)


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
