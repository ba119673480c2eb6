"""Check that components of every group keep their contracts: filters, rewards, tools, indexes."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from llmstages.data.filtering import Document, Drop, Edit
from llmstages.data.passages import Passage
from llmstages.testing.common import make, resolve
from llmstages.testing.tiny import problem_rows, tiny_artifact
from llmstages.text.environments import Episode

PAGE = "<html><body><article><p>A page about the river.</p></article></body></html>"


def check_filter(
    component: str | type,
    config: Mapping[str, Any] | None = None,
    keeps: Sequence[str] = (),
    drops: Sequence[str] = (),
) -> None:
    """Check a filter of kind "judge" or "edit".

    Args:
        component: the registered name, or the class.
        config: values that differ from the defaults.
        keeps: texts that it must keep (or edit).
        drops: texts that it must drop.
    """
    options = dict(config or {})
    instance = make("filters", component, options)
    assert instance.kind in ("judge", "edit", "group"), f"kind is {instance.kind!r}"
    if instance.kind == "group":
        return
    texts = [*keeps, *drops, "", "A short text.", "word " * 200, "línea única 東京 🙂"]
    verdicts = _verdicts(component, options, texts)
    assert verdicts == _verdicts(component, options, texts), "two calls give different verdicts"
    one_by_one = [_verdicts(component, options, [text])[0] for text in texts]
    assert verdicts == one_by_one, "a verdict depends on the other documents of its batch"
    for text, verdict in zip(texts, verdicts, strict=True):
        assert verdict is None or isinstance(verdict, (Drop, Edit)), (
            f"judge() gives {verdict!r}; a verdict is None, a Drop or an Edit"
        )
        if isinstance(verdict, Drop):
            assert text not in keeps, f"it drops {text[:60]!r}: {verdict}"
            assert verdict.limit, (
                f"a Drop says which limit was broken; this one does not: {verdict}"
            )
        elif text in drops:
            raise AssertionError(f"it keeps {text[:60]!r}")
    cls = resolve("filters", component)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        elsewhere = pool.submit(_verdicts, cls, options, texts).result()
    assert elsewhere == verdicts, "another process gives different verdicts"


def _verdicts(component: Any, config: dict[str, Any], texts: Sequence[str]) -> list[Any]:
    from llmstages.core.config import build_config

    cls = resolve("filters", component)
    instance = cls(build_config(cls.Config, config, cls.__name__))
    documents = [
        Document(str(number), f"https://example.org/{number}", text)
        for number, text in enumerate(texts)
    ]
    verdicts = list(instance.judge(documents))
    assert len(verdicts) == len(documents), (
        f"judge() gives {len(verdicts)} verdicts for {len(documents)} documents"
    )
    return verdicts


def check_extractor(component: str | type, config: Mapping[str, Any] | None = None) -> None:
    """Check an extractor: text out of pages, equal each time, never anything but a text."""
    instance = make("extractors", component, dict(config or {}))
    url = "https://example.org/"
    for source in (PAGE, PAGE.replace("<p>", ""), "<html></html>", "no markup at all"):
        text = instance.extract(source, url)
        assert isinstance(text, str), f"extract() gives {text!r}, which is not a text"
        assert text == instance.extract(source, url), "two calls give different texts"
    assert "river" in instance.extract(PAGE, url), f"no text from a plain article: {PAGE}"


def check_reward(
    component: str | type,
    config: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    better: Sequence[tuple[str, str]] = (),
) -> None:
    """Check a reward: one finite number (or None) a completion, in order, equal each time.

    Args:
        component: the registered name, or the class.
        config: values that differ from the defaults.
        folder: an empty folder, for a reward that opens an artifact (``needs``).
        better: pairs of completions of the first tiny problem ("Where does the fox live?"); the
            first of each pair must score higher.
    """
    instance = make("rewards", component, dict(config or {}))
    if needs := getattr(instance, "needs", ""):
        assert folder is not None, f"this reward opens a {needs}: give check_reward a folder"
        instance.open(tiny_artifact(needs, folder / needs))
    # ``calls`` is there where a policy has tools, ``earned`` where it acts in environments.
    rows = [
        {**row, "calls": number, "earned": float(number)}
        for number, row in enumerate(problem_rows())
    ]
    completions = [str(row["answer"]) for row in rows]
    completions[1] = ""
    scores = _scores(instance, rows, completions)
    assert scores == _scores(instance, rows, completions), "two calls give different scores"
    backwards = _scores(instance, rows[::-1], completions[::-1])
    assert backwards == scores[::-1], "scores are not in the order of the completions"
    for first, second in better:
        higher, lower = _scores(instance, [rows[0]] * 2, [first, second])
        assert higher > lower, f"{first!r} scores {higher}, {second!r} scores {lower}"


def _scores(
    instance: Any, rows: Sequence[Mapping[str, Any]], completions: Sequence[str]
) -> list[Any]:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    scores = list(instance.score([row["prompt"] for row in rows], completions, columns))
    assert len(scores) == len(completions), (
        f"score() gives {len(scores)} numbers for {len(completions)} completions"
    )
    for score in scores:
        is_number = isinstance(score, (int, float)) and math.isfinite(score)
        assert is_number or score is None, f"score() gives {score!r}, which is not a finite number"
    return [score if score is None else float(score) for score in scores]


def check_grader(
    component: str | type,
    config: Mapping[str, Any] | None = None,
    right: Sequence[tuple[str, str]] = (),
    wrong: Sequence[tuple[str, str]] = (),
) -> None:
    """Check a grader: one verdict a reply, in order, equal each time.

    Args:
        component: the registered name, or the class.
        config: values that differ from the defaults.
        right: pairs of a reply and an answer that it gives.
        wrong: pairs of a reply and an answer that it does not give.
    """
    instance = make("graders", component, dict(config or {}))
    pairs = [
        *right,
        *wrong,
        ("", "Paris"),
        ("Paris", "Paris"),
        ("東京 🙂", "18"),
        ("x" * 9999, "x"),
    ]
    replies = [reply for reply, _ in pairs]
    rows = [{**problem_rows()[0], "answer": answer} for _, answer in pairs]
    verdicts = list(instance.grade(replies, rows))
    assert len(verdicts) == len(pairs), (
        f"grade() gives {len(verdicts)} verdicts for {len(pairs)} replies"
    )
    for verdict in verdicts:
        assert verdict is None or isinstance(verdict, bool), (
            f"grade() gives {verdict!r}; a verdict is True, False or None"
        )
    assert verdicts == list(instance.grade(replies, rows)), "two calls give different verdicts"
    backwards = list(instance.grade(replies[::-1], rows[::-1]))
    assert backwards == verdicts[::-1], "verdicts are not in the order of the replies"
    for place, (reply, answer) in enumerate(right):
        assert verdicts[place] is True, f"{reply!r} gives {answer!r}, but is graded as wrong"
    for place, (reply, answer) in enumerate(wrong, len(right)):
        assert verdicts[place] is not True, f"{reply!r} does not give {answer!r}, but counts"
    without_aliases = {"prompt": rows[0]["prompt"], "answer": "Paris"}
    assert len(list(instance.grade(["Paris"], [without_aliases]))) == 1


def check_tool(
    component: str | type,
    folder: Path,
    config: Mapping[str, Any] | None = None,
    calls: Mapping[str, str] | None = None,
) -> None:
    """Check a tool: text in, text out, equal each time.

    Args:
        component: the registered name, or the class.
        folder: what ``open`` gets: the folder of a tools artifact, or an empty one.
        config: values that differ from the defaults.
        calls: argument -> result that it must give.
    """
    instance = make("tools", component, dict(config or {}))
    marks = getattr(instance, "marks", None)
    assert marks is None or (len(marks) == 2 and all(isinstance(mark, str) for mark in marks)), (
        f"marks is {marks!r}, which is not a pair of texts"
    )
    instance.open(folder)
    for argument, expected in (calls or {}).items():
        result = instance(argument)
        assert result == expected, f"{argument!r} gives {result!r}, not {expected!r}"
    for argument in ("", "x" * 10_000, "<|im_end|>", "\0", "東京 🙂"):
        try:
            result = instance(argument)
        except Exception:  # the model reads it as "error: ..."
            continue
        assert isinstance(result, str), f"{argument[:20]!r} gives {result!r}, not a text"
        assert result == instance(argument), f"two calls with {argument[:20]!r} differ"


def check_environment(
    component: str | type, config: Mapping[str, Any] | None = None, actions: Sequence[str] = ()
) -> None:
    """Check an environment: episodes of one seed are equal, and any text may be said.

    Args:
        component: the registered name, or the class.
        config: values that differ from the defaults.
        actions: texts that mean something to it, said one after the other.
    """
    texts = [*actions, "", "x" * 10_000, "<|im_end|>", "\0", "東京 🙂"]
    episodes = []
    for _ in range(2):
        instance = make("environments", component, dict(config or {}))
        episode = Episode(instance, seed=7, max_turns=len(texts))
        said = [episode.begin(), *(episode.after(text) for text in texts)]
        assert not episode.error, f"it fails: {episode.error}"
        episodes.append((said, episode.earned, episode.turns))
    assert episodes[0] == episodes[1], "two episodes of one seed differ"


def check_index(
    component: str | type, folder: Path, config: Mapping[str, Any] | None = None
) -> None:
    """Check an index: another instance finds what one has built, whatever is asked.

    Args:
        component: the registered name, or the class.
        folder: an empty folder.
        config: values that differ from the defaults.
    """
    texts = ["The fox lives near the river.", "A clock tower stands in the town.", "東京の塔 🙂"]
    passages = [
        Passage(f"page{number}:0", text, number, "https://example.org", "title", str(number))
        for number, text in enumerate(texts)
    ]
    make("indexes", component, dict(config or {})).build(folder, iter(passages))
    opened = make("indexes", component, dict(config or {}))
    opened.open(folder)
    for passage in passages:
        found = list(opened.find(passage.text, 1))
        assert found == [passage], f"{passage.text!r} finds {found}, not the passage itself"
    found = list(opened.find("fox tower", 10))
    assert set(found) == set(passages[:2]), f"two words of two passages find {found}"
    for query in ("", "zzz", "?!", "\0", '"', "NEAR( *", "a:b^2 -c", "x" * 10_000):
        found = list(opened.find(query, 2))
        assert found == list(opened.find(query, 2)), f"two calls with {query[:20]!r} differ"
        assert len(found) <= 2, f"{query[:20]!r} finds {len(found)} passages; the limit is 2"


def check_evaluator(
    component: str | type, folder: Path, config: Mapping[str, Any] | None = None
) -> None:
    """Check an evaluator on a tiny model: the structure of what score() returns, and its numbers.

    Args:
        component: the registered name, or the class.
        folder: an empty folder.
        config: values that differ from the defaults.
    """
    from llmstages.train.trainer import load_tokenizer

    instance = make("evaluators", component, dict(config or {}))
    artifact = tiny_artifact("model", folder / "model")
    model, tokenizer = _load(artifact), load_tokenizer(artifact.path)
    questions = problem_rows()
    done: list[float] = []

    def advance(n: float = 1, note: str = "") -> None:
        done.append(n)

    scores, answers, facts = instance.score(model, tokenizer, questions, None, advance)
    assert sum(done) <= len(questions), (
        f"advance() was told {sum(done)} questions, but there are {len(questions)}"
    )
    for task, groups in scores.items():
        for group, metrics in groups.items():
            for name, value in metrics.items():
                assert isinstance(value, (int, float)) and math.isfinite(value), (
                    f"{task}/{group}/{name} is {value!r}, which is not a finite number"
                )
    for answer in answers:
        absent = {"prompt", "answer", "task"} - set(answer)
        assert not absent, f"a row of answers lacks {sorted(absent)}"
    for name, value in facts.items():
        assert math.isfinite(value), f"the fact {name!r} is {value!r}"


def _load(artifact: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(artifact.path)
