"""Training that can be stopped at any moment and ends with the same weights, to the bit on a CPU.

``train(trainer, config, ctx, watch)`` takes the place of ``trainer.train()``. It continues from the
newest undamaged checkpoint and saves one every so many minutes or updates. On SIGTERM, SIGUSR1,
SIGHUP (the terminal was closed) or Ctrl-C it saves after the current update and leaves with exit
code 75, which a scheduler takes for "start me again" (130 on Ctrl-C). The Trainer restores weights,
optimizer, schedule, data order and random numbers; what it forgets (the loss since the last log
line, the metrics of TRL) is kept in one file per process.

Left out: resuming with another number of processes. It would change the sums, so it is refused.
"""

from __future__ import annotations

import errno
import hashlib
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
from llmstages.train import checkpoints, distributed
from llmstages.train.checkpoints import Checkpoint
from llmstages.train.distributed import Processes

SIGNALS = ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT")
INSIST_SECONDS = 2.0  # after which the same signal a second time means: now
LIBRARIES = ("torch", "transformers", "trl", "accelerate")  # whose versions decide about bits
COUNTERS = ("_total_train_tokens", "_step")  # of TRL's trainers, where they have them
LISTS = ("rollouts",)  # of trainers of RL, of what JSON can hold
MARKED_ROWS = 16  # whose content is compared when training continues
FULL_DISK = ("No space left", "failed writing file", "write file")  # in messages of libraries


def train(trainer: Any, config: Any, ctx: Context, watch: Any) -> None:
    """Train to the end, from the newest checkpoint if there is one.

    Args:
        trainer: a Trainer that is ready to train.
        config: the options of the stage, an ``Optimization``.
        ctx: where the step runs.
        watch: the recorder, whose memory of spikes is saved with checkpoints.

    Raises:
        SystemExit: with code 75 after a signal, once all is saved.
        KeyboardInterrupt: the same after Ctrl-C.
        StageError: the checkpoint was made in a way that cannot be continued.
        OSError: the disk is full; the checkpoint before stays.
    """
    processes = Processes()
    data = data_mark(trainer.train_dataset)
    found = processes.share(lambda: start_of(ctx, config, data))
    with signals() as received:
        saver = _saver(trainer, config, ctx, processes, received, found, watch, data)
        trainer.add_callback(saver)
        try:
            trainer.train(resume_from_checkpoint=str(found.path) if found else None)
        except Exception as error:
            # A full disk ends the training with a message; the checkpoint before is untouched.
            if saver.saving and _is_disk_full(error):
                checkpoints.clear(ctx.work)
                raise OSError(
                    errno.ENOSPC,
                    f"No space left on device for a checkpoint of {ctx.step}; the one before it "
                    "is kept",
                ) from error
            raise
        finally:
            trainer.remove_callback(saver)


def start_of(ctx: Context, config: Any, data: str = "") -> Checkpoint | None:
    """The checkpoint to continue from, None to begin.

    Args:
        ctx: where the step runs.
        config: the options of the stage.
        data: a mark of the rows that are trained on (``data_mark``); "" is not compared.

    Raises:
        StageError: it is of other processes, another size of micro batches or other data, or the
            state of its optimizer is not there.
    """
    # Drafts are left over from saves that were interrupted.
    checkpoints.clear(ctx.work)
    found = checkpoints.newest(ctx.work / checkpoints.FOLDER, ctx.say)
    if not found:
        return None
    _require_same_sums(found, ctx, config)
    _require_same_data(found, ctx, data)
    _require_optimizer(found, ctx)
    line = f"{ctx.step}: continues after update {found.update}"
    changes = _changed_versions(found)
    if changes:
        line += f" (with {', '.join(changes)}: bits may differ)"
    ctx.say(line)
    return found


def _require_same_sums(found: Checkpoint, ctx: Context, config: Any) -> None:
    interrupted = f"step {ctx.step!r} was interrupted at update {found.update}"
    start_over = f"or start it over by deleting {found.path.parent}"
    processes = found.about.get("processes")
    if processes != ctx.processes:
        raise StageError(
            f"{interrupted} with {processes} processes and would now continue with "
            f"{ctx.processes}, which does not give the same result. Give it {processes} again "
            f"(launch.processes={processes}), {start_over}"
        )
    micro_batch_size = found.about.get("micro_batch_size")
    if micro_batch_size != config.micro_batch_size:
        raise StageError(
            f"{interrupted} with micro_batch_size={micro_batch_size}; with "
            f"{config.micro_batch_size} sums are rounded differently. Set "
            f"{ctx.step}.micro_batch_size back, {start_over}"
        )


def _require_same_data(found: Checkpoint, ctx: Context, data: str) -> None:
    trained_on = found.about.get("data", "")
    if data and trained_on and data != trained_on:
        raise StageError(
            f"step {ctx.step!r} was interrupted at update {found.update} while it trained on other "
            f"rows than those it has now: its position in them means nothing here. Start it over "
            f"by deleting {found.path.parent}"
        )


def _require_optimizer(found: Checkpoint, ctx: Context) -> None:
    """Refuse to continue without the state of the optimizer, which Trainer would begin anew."""
    has_state = any(found.path.glob("optimizer*")) or any(found.path.glob("pytorch_model_fsdp*"))
    uses_deepspeed = distributed.requested_backend().startswith("zero")
    by_deepspeed = any(found.path.glob("global_step*"))
    if by_deepspeed != uses_deepspeed or not (has_state or by_deepspeed):
        written = "DeepSpeed" if by_deepspeed else "another launcher"
        raise StageError(
            f"step {ctx.step!r} was interrupted at update {found.update} under {written}, whose "
            "state of the optimizer cannot be read under this one: training would go on with a "
            f"new optimizer and a second warm-up. Use the same launch, or start it over by "
            f"deleting {found.path.parent}"
        )


def data_mark(rows: Any) -> str:
    """A mark of what a Trainer trains on: the number of its rows and some of them.

    "" for rows that have no length.
    """
    if not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__"):
        return ""
    count = len(rows)
    places = sorted({place * count // MARKED_ROWS for place in range(MARKED_ROWS)} if count else ())
    digest = hashlib.sha256(str(count).encode())
    for place in places:
        for name, value in sorted(rows[place].items()):
            plain = value.tolist() if hasattr(value, "tolist") else value
            digest.update(f"{name}={plain!r};".encode())
    return digest.hexdigest()[:20]


def _changed_versions(found: Checkpoint) -> list[str]:
    current = versions()
    return [
        f"{name} {old} -> {current.get(name)}"
        for name, old in found.about.get("versions", {}).items()
        if current.get(name) != old
    ]


def versions() -> dict[str, str]:
    """Versions of the libraries that decide about bits."""
    from importlib import metadata

    return {name: metadata.version(name) for name in LIBRARIES}


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collect the numbers of signals instead of ending on them.

    The same signal again after INSIST_SECONDS leaves at once, with what was saved last.
    """
    received: list[int] = []
    first_time: dict[int, float] = {}

    def note(number: int, _: Any) -> None:
        first = first_time.setdefault(number, time.monotonic())
        if time.monotonic() - first > INSIST_SECONDS:
            raise _exit(number)
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received  # Python allows handlers in the main thread alone
        return
    handlers = {}
    for name in SIGNALS:
        number = getattr(signal, name, None)
        # A signal that is ignored, as SIGHUP under nohup, stays ignored.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            handlers[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _saver(
    trainer: Any,
    config: Any,
    ctx: Context,
    processes: Processes,
    received: list[int],
    found: Checkpoint | None,
    watch: Any,
    data: str,
) -> Any:
    """The callback that decides when to save, and seals what the Trainer has written."""
    from transformers import TrainerCallback

    stride = _saving_stride(trainer)

    class Saver(TrainerCallback):
        """saving: whether a save has begun. leaving: the signal to leave on after it, or 0."""

        saving = False
        leaving = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.saved_at = time.monotonic()
            if not found:
                return
            rest = _restore(trainer, found.path, args.process_index)
            watch.spikes.restore(rest["spikes"])
            # A trainer whose sampler knows nothing of epochs is told how many are done. The epoch
            # is a fraction and can be a rounding error below a whole number.
            if hasattr(trainer, "skip_epochs"):
                trainer.skip_epochs(int(state.epoch + 1e-6))

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seconds = time.monotonic() - self.saved_at
            late = config.save_minutes > 0 and seconds > 60 * config.save_minutes
            number = received[-1] if received else 0
            # All processes save or none: a signal to any of them counts, and the first one's clock.
            number, late = processes.most(number, late and processes.first)
            scheduled = config.save_every and state.global_step % config.save_every == 0
            if not (late or scheduled or number):
                return
            if state.global_step % stride == 0 and state.global_step < state.max_steps:
                self.leaving = int(number)
                self.saving = True
                control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            draft = ctx.work / f"checkpoint-{state.global_step}"
            rest = {**_rest(trainer), "spikes": watch.spikes.state()}
            _rest_file(draft, args.process_index).write_text(json.dumps(rest), encoding="utf-8")
            # The draft is complete once every process has written its part.
            processes.wait()
            about = {
                "update": state.global_step,
                "of": state.max_steps,
                "processes": ctx.processes,
                "micro_batch_size": config.micro_batch_size,
                "data": data,
                "versions": versions(),
            }
            processes.share(lambda: _keep(draft, ctx, about, config.save_last))
            self.saving = False
            self.saved_at = time.monotonic()
            if self.leaving:
                leave(ctx, state, processes, self.leaving)

    return Saver()


def _keep(draft: Path, ctx: Context, about: dict[str, Any], last: int) -> None:
    checkpoints.keep(draft, ctx.work / checkpoints.FOLDER, about, last)


def leave(ctx: Context, state: Any, processes: Processes, number: int) -> None:
    """Report what was saved, and raise what ends the process on signal ``number``."""
    if processes.first:
        ctx.say(
            f"{ctx.step}: saved after update {state.global_step} of {state.max_steps} on "
            f"{signal.Signals(number).name}; the same command continues from there"
        )
        stopped = {"update": state.global_step, "of": state.max_steps, "signal": number}
        (ctx.out.parent / STOPPED).write_text(json.dumps(stopped))
    with suppress(RuntimeError):  # the last one may find the others gone: all is saved by now
        processes.wait()
    raise _exit(number)


def _exit(number: int) -> BaseException:
    """How to leave on a signal: Ctrl-C stops for good, the others ask to be started again."""
    if number == signal.SIGINT:
        return KeyboardInterrupt()
    return SystemExit(REQUEUE)


def _saving_stride(trainer: Any) -> int:
    """Updates between two moments at which nothing is half done.

    GRPO trains several updates on one round of samples, which its checkpoints do not contain.
    """
    per_round = getattr(trainer.args, "steps_per_generation", None)
    if not per_round:
        return 1
    return max(1, per_round * trainer.num_iterations // trainer.args.gradient_accumulation_steps)


def _rest_file(folder: Path, process: int) -> Path:
    return folder / f"rest-{process}.json"


def _rest(trainer: Any) -> dict[str, Any]:
    """What a Trainer keeps between two log lines and leaves out of its checkpoints."""
    rest: dict[str, Any] = {
        "loss": trainer._tr_loss.item(),
        "total": trainer._total_loss_scalar,
        "logged": trainer._globalstep_last_logged,
    }
    if hasattr(trainer, "_metrics"):  # of TRL: mode -> name -> values since the last log line
        rest["metrics"] = {
            mode: {name: list(map(float, values)) for name, values in metrics.items()}
            for mode, metrics in trainer._metrics.items()
        }
    for name in COUNTERS:
        value = getattr(trainer, name, None)
        if isinstance(value, int):
            rest[name] = value
    for name in LISTS:
        if hasattr(trainer, name):
            rest[name] = list(getattr(trainer, name))
    return rest


def _restore(trainer: Any, folder: Path, process: int) -> dict[str, Any]:
    """Give the trainer back what ``_rest`` took from it; returns all that was saved with it."""
    rest: dict[str, Any] = json.loads(_rest_file(folder, process).read_text(encoding="utf-8"))
    # Added in place: it is a tensor on the device of the trainer.
    trainer._tr_loss += rest["loss"]
    trainer._total_loss_scalar = rest["total"]
    trainer._globalstep_last_logged = rest["logged"]
    for mode, metrics in rest.get("metrics", {}).items():
        for name, values in metrics.items():
            trainer._metrics[mode][name].extend(values)
    for name in (*COUNTERS, *LISTS):
        if name in rest:
            setattr(trainer, name, rest[name])
    return rest


def _is_disk_full(error: BaseException) -> bool:
    """Whether the error comes from a full disk; safetensors and torch have errors of their own."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    message = str(error)
    return any(part in message for part in FULL_DISK)
