"""Tasks of lm-evaluation-harness: found by name while planning, loaded with their data, silently.

The harness downloads data while it makes a task. Here all of that happens before a model is loaded,
an error names the data set and the ways out, and tables that are local files are not copied into
the user's cache of data sets but into the step's own scratch folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import random
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError, near
from llmstages.core.stage import Context

FILE_FORMATS = ("json", "csv", "parquet", "text", "arrow")  # dataset_path of local tables
NOISY = ("lm_eval", "datasets", "huggingface_hub", "evaluate", "httpx")
# A task, group or tag of one name, and the items of lists of tags
DECLARED = re.compile(rb"""^(?:task|group|tag):[ \t]*["']?([^\s"'#\[]+)""", re.MULTILINE)
LISTED = re.compile(rb"""^[ \t]*-[ \t]*["']?([\w.:+-]+)["']?[ \t]*$""", re.MULTILINE)


def require_known(names: Sequence[str], include_path: str, step: str) -> None:
    """Refuse names that no YAML file declares; the files are searched, not parsed.

    Raises:
        StageError: a name is unknown.
    """
    unknown, declared = set(names), set()
    folders = [Path(include_path).expanduser()] if include_path else []
    for file in _yaml_files([*folders, _harness_tasks()]):
        if not unknown:
            return
        text = file.read_bytes()
        found = {name.decode(errors="replace") for name in DECLARED.findall(text)}
        declared |= found
        unknown -= found.union(name.decode() for name in LISTED.findall(text))
    for name in sorted(unknown):
        raise StageError(
            f"{step}.tasks: there is no task {name!r}.{near(name, sorted(declared))} `lm-eval ls "
            f"tasks` lists those of the harness; {step}.include_path=FOLDER adds your own"
        )


def load(config: Any, ctx: Context) -> dict[str, Any]:
    """The tasks of a configuration (LMEvalConfig) with their data, as the harness keeps them.

    Returns:
        What ``TaskManager.load`` returns: ``tasks``, ``groups`` and ``group_map``.

    Raises:
        StageError: a data set cannot be loaded, or a task cannot be asked here.
    """
    from transformers import set_seed

    set_seed(config.seed)
    random.seed(0)  # as the harness does: tasks that shuffle their data do it by this one
    include = Path(config.include_path).expanduser() if config.include_path else None
    own = _own_names(include)
    names = list(config.tasks) or sorted(own)
    folder = include.parent if include and include.is_file() else include
    with quiet(), _loading(folder, ctx):
        from lm_eval.tasks import TaskManager

        # Parsing all tasks of the harness takes 10 s.
        only_own = own.issuperset(names)
        manager = TaskManager(
            include_path=str(folder) if folder else None, include_defaults=not only_own
        )
        try:
            loaded: Any = manager.load(names)
        except (KeyError, ValueError, TypeError, OSError, ImportError) as error:
            raise StageError(f"{ctx.step}: a task of {names} cannot be made: {error}") from error
    for name, task in loaded["tasks"].items():
        _require_offered(name, task, ctx)
        _set_fewshot(task, config)
        _try_first_question(name, task, config, ctx)
    return dict(loaded)


def reset_fewshot(tasks: Mapping[str, Any], seed: int) -> None:
    """Draw the same few-shot examples for the next model."""
    for task in tasks["tasks"].values():
        task.set_fewshot_seed(seed=seed)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the log, warnings, bars and prints of the harness; exceptions pass."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    hidden = io.StringIO()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            contextlib.redirect_stdout(hidden),
            contextlib.redirect_stderr(hidden),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _harness_tasks() -> Path:
    spec = importlib.util.find_spec("lm_eval")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    return Path(roots[0]) / "tasks" if roots else Path()


def _yaml_files(roots: Sequence[Path]) -> Iterator[Path]:
    for root in roots:
        if root.is_file():
            yield root
        for folder, _, names in os.walk(root):
            for name in names:
                if name.endswith(".yaml"):
                    yield Path(folder) / name


def _own_names(include: Path | None) -> set[str]:
    """The tasks and groups that the files of include_path declare."""
    if include is None:
        return set()
    texts = [file.read_bytes() for file in _yaml_files([include])]
    return {name.decode() for text in texts for name in DECLARED.findall(text)}


@contextlib.contextmanager
def _loading(folder: Path | None, ctx: Context) -> Iterator[None]:
    """While tasks are made, ``datasets.load_dataset`` reads local tables and explains failures."""
    import datasets

    original = datasets.load_dataset

    def load_dataset(path: str, name: str | None = None, **options: Any) -> Any:
        if path in FILE_FORMATS:
            options.setdefault("cache_dir", str(ctx.work / "datasets"))
            options["data_files"] = _found(options.get("data_files"), folder)
        try:
            return original(path, name, **options)
        # Loaders fail in many ways: no connection, no such file, rows that do not fit.
        except Exception as error:
            raise StageError(_no_data(path, name, options, error, ctx)) from error

    datasets.load_dataset = load_dataset  # type: ignore[assignment]
    try:
        yield
    finally:
        datasets.load_dataset = original


def _found(files: Any, folder: Path | None) -> Any:
    """data_files with paths below the folder of the task, where they exist there."""
    if isinstance(files, Mapping):
        return {split: _found(value, folder) for split, value in files.items()}
    if isinstance(files, (list, tuple)):
        return [_found(value, folder) for value in files]
    if isinstance(files, str) and folder and (folder / files).exists():
        return str(folder / files)
    return files


def _no_data(
    path: str, name: str | None, options: Mapping[str, Any], error: Exception, ctx: Context
) -> str:
    what = f"{path} ({name})" if name else path
    if path in FILE_FORMATS:
        what = f"{path} {options.get('data_files')}"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"{ctx.step}: the data set {what} cannot be loaded: {reason}. Without a connection to the "
        "Hugging Face hub: run the task once on a machine that has one, bring its HF_HOME here and "
        "set HF_DATASETS_OFFLINE=1; or write a task YAML with `dataset_path: json` and "
        f"`dataset_kwargs: {{data_files: {{test: FILE}}}}`, and name its folder in "
        f"{ctx.step}.include_path"
    )


def _require_offered(name: str, task: Any, ctx: Context) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise StageError(
            f"{ctx.step}: the task {name} runs what a model writes as code, which is not offered"
        )
    if getattr(task, "MULTIMODAL", False):
        raise StageError(f"{ctx.step}: the task {name} needs images or sound, not a text model")


def _set_fewshot(task: Any, config: Any) -> None:
    """The number of examples, by the rule of the harness: a task that says 0 keeps it."""
    own = task.get_config("num_fewshot")
    if config.num_fewshot >= 0 and own != 0:
        task.set_config(key="num_fewshot", value=config.num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)


def _try_first_question(name: str, task: Any, config: Any, ctx: Context) -> None:
    """Make one prompt, which finds absent columns and too few examples before a model is loaded."""
    task.set_fewshot_seed(seed=config.seed)
    try:
        with quiet():
            task.build_all_requests(limit=1, rank=0, world_size=1)
    # A task is foreign code, with templates of its own: it may raise anything.
    except Exception as error:
        shots = task.get_config("num_fewshot")
        raise StageError(
            f"{ctx.step}: the first question of the task {name} cannot be made with {shots} "
            f"examples: {type(error).__name__}: {error}"
        ) from error
