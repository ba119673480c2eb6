"""tools.augment: rows in which tools are called, where a call helps, and rows without a call.

Calls are proposed before the last answer of each dialogue, by rules (proposals.py) or by a model
(model_proposals.py). Every call is run on the real tool. ``keep`` decides which are kept:

toolformer  those whose result lowers the model's loss of the answer by ``min_gain`` (usefulness.py,
            after Schick et al. 2023), so that the model learns to call where it needs to
agreeing    those whose result holds something that the answer says and the question does not,
            whether the model needs it or not

The best call of a dialogue is kept. Dialogues in which no call helped become rows without a call,
up to ``no_call_share`` of all rows: a model that saw calls alone would call always. The file
candidates.jsonl shows every candidate with its losses and why it was dropped. Left out on purpose:
several calls for one answer (tools=calculations), calls in the middle of an answer, and calls for
earlier answers of a dialogue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.registry import load_component
from llmstages.core.stage import Context, option
from llmstages.plugins.tools import index, model_proposals, proposals, selection, usefulness
from llmstages.plugins.tools.pages import pages_of
from llmstages.plugins.tools.proposals import Candidate, used_by
from llmstages.train.inference import dtype_option

PROPOSALS = ("rules", "model")
RULE_CANDIDATES = 2  # of a dialogue, assumed for the estimate


@dataclass(frozen=True)
class AugmentConfig:
    tools: dict[str, Any] = option(
        help="the tools to teach: name -> tool and its settings", factory=dict
    )
    proposals: list[str] = option(
        help="who proposes calls: rules, model, or both", factory=lambda: ["rules"]
    )
    keep: str = option(
        "toolformer",
        "toolformer: calls that lower the loss of the wired model; agreeing: calls whose result "
        "agrees with the answer",
        choices=("toolformer", "agreeing"),
    )
    min_gain: float = option(
        0.5,
        "least reduction of the loss by a call, in nats per token (tau_f of Toolformer, whose "
        "table 2 compares 0.5, 1 and 2)",
    )
    horizon: int = option(
        5,
        "tokens over which the weights of the loss fall to zero, from the first one that the "
        "result tells (Toolformer: 5); 0: all tokens from there on are equal",
        ge=0,
    )
    place: str = option(
        "turn",
        "where the model sees a call while losses are computed; turn: where it will be trained; "
        "prefix: as text before the question, as in Toolformer",
        choices=("turn", "prefix"),
    )
    no_call_share: float = option(
        0.3, "share of rows without a call, as far as there are such dialogues", ge=0, lt=1
    )
    max_result: int = option(600, "calls with a longer result are dropped; in characters", ge=1)
    samples: int = option(1, "calls that the model proposes for each question", ge=1)
    temperature: float = option(0.0, "temperature of proposals; 0 is greedy", ge=0)
    max_new_tokens: int = option(64, "longest proposal in tokens", ge=1)
    batch: int = option(16, "sequences that the model reads or writes at once", ge=1)
    seed: int = option(0, "seed of proposals and of the choice of rows without a call", ge=0)
    allow_empty: bool = option(
        False, "go on without any call where none is kept, instead of failing"
    )
    dtype: str = dtype_option()

    def __post_init__(self) -> None:
        unknown = [name for name in self.proposals if name not in PROPOSALS]
        if unknown or not self.proposals:
            named = unknown[0] if unknown else "empty"
            raise ValueError(f"proposals has {named}; choose of {', '.join(PROPOSALS)}")
        if self.samples > 1 and not self.temperature:
            raise ValueError(
                f"samples={self.samples} proposals at temperature 0 would all be the same; set "
                "temperature=1, or samples=1"
            )

    @property
    def asks_model(self) -> bool:
        """Whether a model is needed."""
        return self.keep == "toolformer" or "model" in self.proposals


class Augment:
    """Dialogues in which tools are called where that helps, and dialogues without a call."""

    Config = AugmentConfig
    inputs: ClassVar[Mapping[str, str]] = {
        "dialogues": "dialogues*",
        "pages": "documents|corpus?",
        "model": "model?",
    }
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "1"
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {"tools": ("calculator",)}

    def validate(self, config: AugmentConfig, step: str) -> None:
        """Refuse a run without tools, and tools that nobody would propose to call."""
        if not config.tools:
            raise StageError(f"{step}.tools is empty; add one: +tools@{step}.tools.search=search")
        if "model" in config.proposals:
            return
        tools = {name: load_component("tools", spec) for name, spec in config.tools.items()}
        rules = proposals.rules_of(config.tools, tools)
        for name in config.tools:
            if name not in rules:
                raise StageError(
                    f"{step}: no rule proposes calls of the tool {name!r}; set "
                    f"{step}.proposals=[rules,model], or give the tool a method "
                    "propose(question, answer)"
                )

    def estimate(
        self, config: AugmentConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Forward passes and proposals, at most; refuses a step without the inputs it needs."""
        from llmstages.cost.generation import Generation, models_of, row_count

        require_inputs(config, "tools=augment", bool(known["model"]), bool(known["pages"]))
        numbers = [row_count(facts) for facts in known["dialogues"]]
        if not config.asks_model or None in numbers:
            return {}
        dialogues = sum(number or 0 for number in numbers)
        proposed = config.samples * dialogues if "model" in config.proposals else 0
        candidates = proposed
        if "rules" in config.proposals:
            candidates += RULE_CANDIDATES * dialogues
        # The dialogue without a call is read once for all candidates.
        passes = dialogues + 2 * candidates if config.keep == "toolformer" else 0
        models = models_of(known["model"])
        if isinstance(models, str):
            return {"forward_passes": passes, "no_estimate": models}
        work = Generation(
            models,
            proposed or passes,
            config.max_new_tokens if proposed else 0,
            config.batch,
            because=f"about {passes:,.0f} forward passes over {dialogues:,.0f} dialogues",
        )
        return {"forward_passes": passes, "generation": work}

    def run(self, config: AugmentConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables
        from llmstages.text import generate

        require_inputs(config, ctx.step, bool(ctx.maybe("model")), bool(ctx.maybe("pages")))
        rows = selection.load_rows(ctx)
        indexed = write_tools(rows, config, ctx)
        tools = generate.open_tools(ctx.out)
        usable, calling, left_out = selection.sort_rows(rows)
        work = Work(config, ctx, tools)
        candidates = work.propose(usable)
        selection.run_calls(candidates, usable, tools, config.max_result)
        work.judge(candidates, usable)

        best = selection.choose_best(candidates)
        calls = len(best) + len(calling)
        others = [number for number in usable if number not in best]
        without = selection.choose_without(others, calls, config.no_call_share, config.seed)
        left_out[selection.BEYOND_SHARE] = len(others) - len(without)
        report(ctx, len(rows), left_out, candidates, work.failures)
        report_share(ctx, calls, len(without), config.no_call_share)
        require_calls(calls, config, ctx)

        chosen = sorted([*calling, *best, *without])
        kept = [selection.completed_row(rows[number], best.get(number)) for number in chosen]
        tables.save(kept, ctx.out / "data", columns=("messages", "task", "tool", "tools"))
        shown = [selection.shown_candidate(one, usable[one.dialogue]) for one in candidates]
        tables.write_lines(ctx.out / "candidates.jsonl", shown)
        return {
            "dialogues": len(kept),
            "calls": len(best),
            "called_already": len(calling),
            "no_call": len(without),
            "dropped": len(rows) - len(kept),
            "indexed_pages": indexed,
            "proposals_failed": sum(work.failures.values()),
            "forward_passes": work.passes,
            **selection.candidate_metrics(candidates),
        }


class Work:
    """Proposes and judges calls, with the model where one is needed.

    Attributes:
        failures: proposals of the model that are no calls, by reason.
        passes: sequences that the model has read to judge calls.
    """

    def __init__(self, config: AugmentConfig, ctx: Context, tools: Mapping[str, Any]) -> None:
        self.failures: Counter[str] = Counter()
        self.passes = 0
        self._config = config
        self._ctx = ctx
        self._tools = tools
        self._model: Any = None
        self._tokenizer: Any = None
        if config.asks_model:
            self._load_model()

    def _load_model(self) -> None:
        from llmstages.train.inference import load_for_inference, require_chat_template
        from llmstages.train.trainer import load_tokenizer

        artifact = self._ctx.one("model")
        self._tokenizer = load_tokenizer(artifact.path)
        require_chat_template(self._tokenizer, artifact, self._ctx)
        self._model = load_for_inference(artifact, self._ctx, self._config.dtype)

    def propose(self, rows: Mapping[int, Mapping[str, Any]]) -> list[Candidate]:
        """The calls proposed for dialogues; of equal ones the first."""
        found: list[Candidate] = []
        if "rules" in self._config.proposals:
            rules = proposals.rules_of(self._config.tools, self._tools)
            for number, row in rows.items():
                found += proposals.by_rules(number, row, rules, self._tools)
        if "model" in self._config.proposals:
            found += self._ask_model(rows)
        unique: dict[tuple[int, str, str], Candidate] = {}
        for candidate in found:
            unique.setdefault((candidate.dialogue, candidate.tool, candidate.argument), candidate)
        return sorted(unique.values(), key=lambda candidate: candidate.dialogue)

    def _ask_model(self, rows: Mapping[int, Mapping[str, Any]]) -> list[Candidate]:
        config, ctx = self._config, self._ctx
        proposer = model_proposals.Proposer(
            self._model,
            self._tokenizer,
            config.tools,
            self._tools,
            samples=config.samples,
            seed=config.seed,
            batch=config.batch,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
        )
        questions = {
            number: proposals.last_question(row["messages"]) for number, row in rows.items()
        }
        total = len(questions) * config.samples
        with ctx.progress(f"{ctx.step} proposals", total) as advance:
            found = proposer.propose(questions, advance)
        wants_none = proposer.counts.pop(model_proposals.NO_CALL, 0)
        if wants_none:
            ctx.say(f"{ctx.step}: {wants_none} of {total} proposals want no call")
        self.failures = proposer.counts
        return found

    def judge(self, candidates: Sequence[Candidate], rows: Mapping[int, Any]) -> None:
        """Give each call that is not kept its reason."""
        config, ctx = self._config, self._ctx
        open_candidates = [candidate for candidate in candidates if not candidate.reason]
        if config.keep == "agreeing":
            selection.require_agreement(open_candidates, rows)
            return
        dialogues = {number: row["messages"] for number, row in rows.items()}
        scorer = usefulness.Scorer(
            self._model, self._tokenizer, self._tools, config.place, config.batch
        )
        total = len(usefulness.VARIANTS) * len(open_candidates)
        with ctx.progress(f"{ctx.step} losses", total) as advance:
            usefulness.score(open_candidates, dialogues, scorer, config.horizon, advance)
        self.passes = scorer.passes
        selection.require_gain(open_candidates, config.min_gain)


def require_inputs(config: AugmentConfig, step: str, has_model: bool, has_pages: bool) -> None:
    """Refuse a step whose model or pages are not wired.

    Raises:
        StageError: what is missing, and how to wire it or do without it.
    """
    if config.asks_model and not has_model:
        raise StageError(
            f"{step} needs a model: losses and proposals are the model's. Wire one "
            "(steps.tools.model=STEP), or keep calls that agree with the answer "
            "(keep=agreeing proposals=[rules])"
        )
    searches = [name for name, spec in config.tools.items() if used_by(name, spec) == "search"]
    if searches and not has_pages:
        raise StageError(
            f"{step} has nothing to search in: wire documents or a corpus "
            f"(steps.tools.pages=STEP), or leave the tool {searches[0]!r} out"
        )


def write_tools(rows: Sequence[Mapping[str, Any]], config: AugmentConfig, ctx: Context) -> int:
    """Write tools.json, and the index of the pages and of those that rows bring along.

    Returns the number of pages in the index, 0 without pages.
    """
    from llmstages.data import tables

    tables.write_json(ctx.out / "tools.json", config.tools)
    pages = ctx.maybe("pages")
    if pages is None:
        return 0
    own_pages = [row["page"] for row in rows if row.get("page")]
    counts = index.build(ctx.out / index.FOLDER, [*pages_of(pages), *own_pages])
    return counts["pages"]


def report(
    ctx: Context,
    total: int,
    left_out: Mapping[str, int],
    candidates: Sequence[Candidate],
    failures: Mapping[str, int],
) -> None:
    """Print why dialogues, calls and proposals were left out, with counts."""
    for reason, count in left_out.items():
        if count:
            ctx.say(f"{ctx.step}: {count} of {total} dialogues left out: {reason}")
    reasons = Counter(candidate.reason for candidate in candidates if candidate.reason)
    for reason, count in reasons.items():
        ctx.say(f"{ctx.step}: {count} of {len(candidates)} calls not kept: {reason}")
    for reason, count in failures.items():
        ctx.say(f"{ctx.step}: {count} proposals of the model not used: {reason}")


def report_share(ctx: Context, calls: int, without: int, share: float) -> None:
    """Say so if there are fewer rows without a call than asked for."""
    wanted = round(calls * share / (1 - share))
    if without < wanted:
        ctx.say(
            f"{ctx.step}: {without} rows without a call, not the {wanted} that "
            f"no_call_share={share:g} asks for: a call helped in all other dialogues"
        )


def require_calls(calls: int, config: AugmentConfig, ctx: Context) -> None:
    """Refuse, or report, that there is no row with a call."""
    if calls:
        return
    if not config.allow_empty:
        raise StageError(
            f"{ctx.step}: no call is kept, so nothing would be taught; the lines above say why. "
            f"Lower {ctx.step}.min_gain, propose more ({ctx.step}.proposals=[rules,model]), or set "
            f"{ctx.step}.allow_empty=true"
        )
    ctx.say(f"{ctx.step}: no call is kept, so no calls are taught")
