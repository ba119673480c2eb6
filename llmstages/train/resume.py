"""Training that may be stopped at any moment and ends with the same weights, to the bit on a CPU.

``train(trainer, config, ctx)`` stands for ``trainer.train()``. It goes on from the newest whole checkpoint, saves one every so
many minutes or updates, and on SIGTERM, SIGUSR1, SIGHUP (the terminal was closed) or Ctrl-C saves after the update at hand and
leaves with exit code 75, which a scheduler takes for "start me again" (130 on Ctrl-C). The Trainer restores weights, optimizer,
schedule, data order and random numbers; what it forgets (the loss since the last log line, TRL's metrics) is kept in a file a
process.
Left out: resuming with another number of processes, which changes the sums; it is refused by name.
"""

from __future__ import annotations

import errno
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.exit_codes import REQUEUE, STOPPED
from llmstages.core.stage import Context
from llmstages.train import checkpoints
from llmstages.train.distributed import Processes

SIGNALS = ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT")
AGAIN = 2.0  # seconds after which the same signal a second time means: now


def train(trainer: Any, config: Any, ctx: Context, watch: Any) -> None:
    """Train to the end, from the newest checkpoint if there is one. Raises SystemExit(75) after a signal, once all is saved.

    watch: the recorder, whose memory of spikes goes into checkpoints.
    """
    processes = Processes()
    found = processes.share(lambda: start_of(ctx, config))
    with signals() as received:
        saver = _saver(trainer, config, ctx, processes, received, found, watch)
        trainer.add_callback(saver)
        try:
            trainer.train(resume_from_checkpoint=str(found.path) if found else None)
        except Exception as error:
            if saver.saving and _full(error):
                checkpoints.clear(ctx.work)
                raise OSError(
                    errno.ENOSPC,
                    f"No space left on device for a checkpoint of {ctx.step}; the one before it is kept",
                ) from error
            raise
        finally:
            trainer.remove_callback(saver)


def start_of(ctx: Context, config: Any) -> checkpoints.Checkpoint | None:
    """The checkpoint to go on from; StageError where it is of another number of processes."""
    checkpoints.clear(ctx.work)
    found = checkpoints.newest(ctx.work / checkpoints.FOLDER, ctx.say)
    if not found:
        return None
    then = found.about.get("processes")
    if then != ctx.processes:
        raise StageError(
            f"step {ctx.step!r} was interrupted at update {found.update} with {then} processes and would now go on with {ctx.processes}, "
            f"which does not give the same result. Give it {then} again (launch.processes={then}), or start it over by deleting {found.path.parent}"
        )
    if found.about.get("micro_batch_size") != config.micro_batch_size:
        raise StageError(
            f"step {ctx.step!r} was interrupted at update {found.update} with micro_batch_size={found.about.get('micro_batch_size')}; with "
            f"{config.micro_batch_size} sums are rounded otherwise. Set {ctx.step}.micro_batch_size back, or start it over by deleting {found.path.parent}"
        )
    now = versions()
    changed = [
        f"{name} {old} -> {now.get(name)}"
        for name, old in found.about.get("versions", {}).items()
        if now.get(name) != old
    ]
    ctx.say(
        f"{ctx.step}: goes on after update {found.update}"
        + (f" (with {', '.join(changed)}: bits may differ)" if changed else "")
    )
    return found


def versions() -> dict[str, str]:
    """Of the libraries that decide bits."""
    from importlib import metadata

    return {name: metadata.version(name) for name in ("torch", "transformers", "trl", "accelerate")}


@contextmanager
def signals() -> Iterator[list[int]]:
    """Note signals instead of dying of them. The same one again after AGAIN seconds leaves at once, with what was saved last."""
    received: list[int] = []
    when: dict[int, float] = {}

    def note(number: int, _: Any) -> None:
        first = when.setdefault(number, time.monotonic())
        if time.monotonic() - first > AGAIN:
            raise _exit(number)
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    before = {
        number: signal.signal(number, note)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN
    }  # as under nohup
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _saver(
    trainer: Any,
    config: Any,
    ctx: Context,
    processes: Processes,
    received: list[int],
    found: checkpoints.Checkpoint | None,
    watch: Any,
) -> Any:
    """The callback that decides when to save, and seals what the Trainer has written."""
    from transformers import TrainerCallback

    unit = _unit(trainer)

    class Saver(TrainerCallback):
        saving = False
        leaving = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.saved = time.monotonic()
            if found:
                watch.spikes.restore(_restore(trainer, found.path, args.process_index)["spikes"])
                if hasattr(trainer, "skip_epochs"):  # its sampler knows nothing of epochs
                    trainer.skip_epochs(int(state.epoch + 1e-6))

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            late = (
                config.save_minutes > 0 and time.monotonic() - self.saved > 60 * config.save_minutes
            )
            number, late = processes.most(received[-1] if received else 0, late and processes.first)
            due = (
                late or (config.save_every and state.global_step % config.save_every == 0) or number
            )
            if due and state.global_step % unit == 0 and state.global_step < state.max_steps:
                self.leaving, self.saving, control.should_save = int(number), True, True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            draft = ctx.work / f"checkpoint-{state.global_step}"
            (draft / f"rest-{args.process_index}.json").write_text(
                json.dumps({**_rest(trainer), "spikes": watch.spikes.state()}), encoding="utf-8"
            )
            processes.wait()
            about = {
                "update": state.global_step,
                "of": state.max_steps,
                "processes": ctx.processes,
                "micro_batch_size": config.micro_batch_size,
                "versions": versions(),
            }
            processes.share(
                lambda: (
                    checkpoints.keep(draft, ctx.work / checkpoints.FOLDER, about, config.save_last)
                    and None
                )
            )
            self.saving, self.saved = False, time.monotonic()
            if self.leaving:
                leave(ctx, state, processes, self.leaving)

    return Saver()


def leave(ctx: Context, state: Any, processes: Processes, number: int) -> None:
    """Say what to do next, and go."""
    if processes.first:
        ctx.say(
            f"{ctx.step}: saved after update {state.global_step} of {state.max_steps} on {signal.Signals(number).name}; the same command goes on from there"
        )
        (ctx.out.parent / STOPPED).write_text(
            json.dumps({"update": state.global_step, "of": state.max_steps, "signal": number})
        )
    with suppress(RuntimeError):  # whoever is last may find the others gone: all is saved by now
        processes.wait()
    raise _exit(number)


def _exit(number: int) -> BaseException:
    """How to leave on a signal: Ctrl-C stops for good, the others ask to be started again."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(REQUEUE)


def _unit(trainer: Any) -> int:
    """Updates between which nothing is half done: GRPO trains several updates on one round of samples, which it does not save."""
    per_round = getattr(trainer.args, "steps_per_generation", None)
    if not per_round:
        return 1
    return max(1, per_round * trainer.num_iterations // trainer.args.gradient_accumulation_steps)


def _rest(trainer: Any) -> dict[str, Any]:
    """What a Trainer keeps between two log lines and leaves out of its checkpoints."""
    rest: dict[str, Any] = {
        "loss": trainer._tr_loss.item(),
        "total": trainer._total_loss_scalar,
        "logged": trainer._globalstep_last_logged,
    }
    if hasattr(trainer, "_metrics"):  # of TRL: mode -> name -> values since the last log line
        rest["metrics"] = {
            mode: {name: [float(v) for v in values] for name, values in named.items()}
            for mode, named in trainer._metrics.items()
        }
    for name in ("_total_train_tokens", "_step"):
        if isinstance(getattr(trainer, name, None), int):
            rest[name] = getattr(trainer, name)
    return rest


def _restore(trainer: Any, folder: Path, process: int) -> dict[str, Any]:
    rest: dict[str, Any] = json.loads((folder / f"rest-{process}.json").read_text(encoding="utf-8"))
    trainer._tr_loss += rest["loss"]
    trainer._total_loss_scalar, trainer._globalstep_last_logged = rest["total"], rest["logged"]
    for mode, named in rest.get("metrics", {}).items():
        for name, values in named.items():
            trainer._metrics[mode][name].extend(values)
    for name in ("_total_train_tokens", "_step"):
        if name in rest:
            setattr(trainer, name, rest[name])
    return rest


def _full(error: BaseException) -> bool:
    """Whether a disk without room is behind an error: safetensors and torch have exceptions of their own for it."""
    told = str(error)
    return (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or "No space left" in told
        or "failed writing file" in told
        or "write file" in told
    )
