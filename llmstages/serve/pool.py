"""Models in memory, by the names that people use: loaded on first use, the oldest one leaves."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from llmstages.pipeline import history
from llmstages.pipeline.history import PastRun, StoredArtifact
from llmstages.serve.chat_session import ChatSession, open_session

MOST_MODELS = 3  # in memory at once


@dataclass
class LoadedModel:
    """A model in memory.

    Attributes:
        artifact: where it came from.
        session: its model, tokenizer, tools and limits. Conversations copy it and share these.
    """

    artifact: StoredArtifact
    session: ChatSession


class ModelPool:
    """The models of one run that are in memory.

    Args:
        run: whose steps give the models. A name that is not one of its steps is refused, so that
            a request cannot load a folder or reach the hub.
        most_models: in memory at once; the one that was used longest ago is dropped.
    """

    def __init__(self, run: PastRun, most_models: int = MOST_MODELS) -> None:
        self.run = run
        self.most_models = most_models
        # By folder, since a step of another run, or run again, is another model.
        self._loaded: OrderedDict[Path, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The steps that made models, in the order in which they were finished."""
        return [step.name for step in self.run.of_kind("model")]

    def loaded(self, name: str) -> LoadedModel | None:
        """The model of a step if it is in memory, without waiting for others that are loaded."""
        step = self.run.steps.get(name)
        found = self._loaded.get(step.path) if step else None
        # What is being loaded holds the lock; who only looks must not wait for it.
        if found and self._lock.acquire(blocking=False):
            if found.artifact.path in self._loaded:
                self._loaded.move_to_end(found.artifact.path)
            self._lock.release()
        return found

    def get(self, name: str) -> LoadedModel:
        """The model of a step, loaded if it is not in memory.

        Raises:
            StageError: the run has no such model, or it cannot be loaded.
        """
        with self._lock:  # one load at a time: two at once would need twice the memory
            artifact = history.find_step(name, self.run, "model")
            if artifact.path not in self._loaded:
                self._loaded[artifact.path] = LoadedModel(artifact, open_session(artifact))
            self._loaded.move_to_end(artifact.path)
            while len(self._loaded) > self.most_models:
                self._loaded.popitem(last=False)
            return self._loaded[artifact.path]
