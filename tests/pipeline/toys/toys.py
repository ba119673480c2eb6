"""A third-party package of tiny stages; installed by putting this folder on the path."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.registry import load_component
from llmstages.core.stage import option


class Pages:
    """Numbers as documents."""

    @dataclass(frozen=True)
    class Config:
        """How many."""

        count: int = option(3, "number of pages")
        seed: int = option(0, "random seed")

    inputs: ClassVar = {}
    output = "documents"
    version = "1"

    def run(self, config: Config, ctx: Any) -> Mapping[str, float]:
        (ctx.out / "data").mkdir()
        (ctx.out / "data" / "rows.json").write_text(json.dumps(list(range(config.count))))
        ctx.say(f"{config.count} pages")
        return {"pages": config.count}


@dataclass(frozen=True)
class Inner:
    """A group of values."""

    depth: int = 2
    names: tuple[str, ...] = ("a",)


class Clean:
    """Filters applied one after the other."""

    @dataclass(frozen=True)
    class Config:
        """What to filter."""

        filters: Mapping[str, Any] = option(factory=dict, help="filters, in order")
        mode: str = option("fast", "how", choices=("fast", "slow"))
        rate: float = option(1e-6, "a rate")
        shape: tuple[int, ...] = option((1, 2), "a shape")
        limit: int | None = option(None, "a limit, or none")
        inner: Inner = option(factory=Inner, help="nested values")
        workers: int = option(1, "processes", identity=False)
        files: str = option("", "word list (glob)", file=True)

    inputs: ClassVar = {"documents": "documents"}
    components: ClassVar = {"filters": ("toy_short",)}
    output = "corpus"
    version = "1"

    def run(self, config: Config, ctx: Any) -> Mapping[str, float]:
        rows = json.loads((ctx.one("documents").path / "data" / "rows.json").read_text())
        for spec in config.filters.values():
            verdicts = load_component("filters", spec).judge(rows)
            rows = [row for row, verdict in zip(rows, verdicts, strict=True) if verdict is None]
        for name in ("data", "dropped"):
            (ctx.out / name).mkdir()
        (ctx.out / "data" / "rows.json").write_text(json.dumps(rows))
        (ctx.out / "funnel.json").write_text("[]")
        return {"kept": len(rows), "shape": sum(config.shape)}


class Short:
    """Keep small numbers."""

    @dataclass(frozen=True)
    class Config:
        """Where to cut."""

        most: int = option(100, "largest number kept")
        verbose: bool = option(False, "say more", identity=False)

    kind = "judge"
    version = "1"

    def __init__(self, config: Config) -> None:
        self.config = config

    def judge(self, documents: list[int]) -> list[str | None]:
        return [None if number <= self.config.most else "drop" for number in documents]


class Model:
    """A model that counts its corpus. Environment variables make it fail, for the tests."""

    @dataclass(frozen=True)
    class Config:
        """Training."""

        learning_rate: float = option(1e-6, "step size")
        seed: int = option(0, "random seed")

    inputs: ClassVar = {"corpus": "corpus*", "base": "model?"}
    output = "model"
    version = "1"
    trains = True

    def run(self, config: Config, ctx: Any) -> Mapping[str, float]:
        print("noise on standard output")
        self.fail(os.environ.get("TOY", ""))
        (ctx.work / "checkpoint").write_text("1")
        with ctx.progress("train", 2) as advance:
            advance(1, "loss 1.0")
        if os.environ.get("RANK", "0") == "0":
            (ctx.out / "config.json").write_text(json.dumps({"rate": config.learning_rate}))
            (ctx.out / "tokenizer_config.json").write_text("{}")
        return {"loss": 1.0, "rate": config.learning_rate, "processes": ctx.processes}

    def fail(self, how: str) -> None:
        if how == "stage":
            raise StageError("the toy cannot train: it was told to fail. Unset TOY")
        if how == "bug":
            raise KeyError("toy")
        if how == "full":
            with open("/dev/full", "w") as disk:
                disk.write("more than there is room for")
        if how == "hang":
            time.sleep(60)
        if how == "exit":
            raise SystemExit(75)


class Distilled(Model):
    """Another variant, which takes other inputs."""

    inputs: ClassVar = {"teacher": "model", "corpus": "corpus?"}


class Page:
    """A report."""

    @dataclass(frozen=True)
    class Config:
        """Nothing to set."""

    inputs: ClassVar = {"steps": "*"}
    output = "report"
    version = "1"

    def run(self, config: Config, ctx: Any) -> Mapping[str, float]:
        names = [artifact.name for artifact in ctx.many("steps")]
        (ctx.out / "index.html").write_text(f"<p>{names}</p>")
        claims = [
            {"name": "has steps", "value": len(names), "target": ">= 1", "met": True},
            {"name": "is large", "value": 0.5, "target": ">= 9", "met": False},
        ]
        (ctx.out / "claims.json").write_text(json.dumps(claims))
        return {}
