"""Runs and their steps: what is finished, what is running, how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmstages.serve.answers import answer

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from llmstages.studio.app import Studio


def routes(studio: Studio) -> list[BaseRoute]:
    """GET /api/run: the run that is looked at."""
    from starlette.routing import Route

    def run(request: Request) -> Response:
        return answer(lambda: run_facts(studio))

    return [Route("/api/run", run)]


def run_facts(studio: Studio) -> dict[str, Any]:
    """The run and its finished steps, oldest first."""
    steps = sorted(studio.run.steps.values(), key=lambda step: step.finished)
    return {
        "where": studio.run.where,
        "models": studio.pool.names(),
        "steps": [
            {
                "name": step.name,
                "kind": step.kind,
                "finished": step.finished,
                "outdated": step.outdated,
                "metrics": step.record.get("metrics") or {},
            }
            for step in steps
        ],
    }
