"""What happens on an alarm: it is said (``alarm=warn``), or training stops (``alarm=stop``).

On stop the policy is put back to its best update before: the one with the highest watched reward
(on held-out problems, where it is measured there), or, where none is watched, the last one whose
signals were within bounds. Its weights lie in the
work folder of the step, so a training that was interrupted finds them again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.stage import Context
from llmstages.plugins.rl import signals
from llmstages.train import distributed

CHOICES = ("warn", "stop")
FOLDER = "best-policy"  # in the work folder of the step


def alarm_callback(ctx: Context, watched: Sequence[str], stops: bool) -> Any:
    """A callback that says each alarm when it is raised, and ends the training if it ``stops``.

    After training ``stopped`` says whether it did, and ``restore(trainer)`` puts the policy back.

    Args:
        ctx: where the step runs.
        watched: names of the rewards of weight 0.
        stops: whether an alarm ends the training.
    """
    from transformers import TrainerCallback

    class Alarms(TrainerCallback):
        stopped = False

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # Those of a training that was interrupted are said already.
            self.said = {alarm.signal for alarm in signals.alarms_of(state.log_history, watched)}

        def on_log(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
            for alarm in signals.alarms_of(state.log_history, watched):
                if alarm.signal not in self.said:
                    self.said.add(alarm.signal)
                    ctx.say(f"{ctx.step}: ALARM at {alarm.sentence()}")
            if not stops:
                return
            if self.said:
                self.stopped = True
                control.should_training_stop = True
            elif is_best(state.log_history, watched) and distributed.first_process():
                keep(model, state.global_step, ctx.work / FOLDER)

        def restore(self, trainer: Any) -> int:
            """Put the policy back to its best update, and return that update."""
            update = load(trainer.model, ctx.work / FOLDER)
            ctx.say(f"{ctx.step}: stopped by the alarm; what is saved is update {update}")
            return update

    return Alarms()


def is_best(log: Sequence[Mapping[str, Any]], watched: Sequence[str]) -> bool:
    """Whether the last row of a log is the best so far.

    Args:
        log: rows of a Trainer's log history.
        watched: names of the rewards of weight 0; their sum decides, if there are any.
    """
    if not watched:
        return not signals.broken_now(log)
    keys = [signals.gold_key(log, name) for name in watched]
    complete = [row for row in log if all(row.get(key) is not None for key in keys)]
    if not complete or complete[-1] is not log[-1]:
        return False  # nothing was measured at this update
    scores = [sum(float(row[key]) for key in keys) for row in complete]
    return scores[-1] == max(scores)


def keep(model: Any, update: int, folder: Path) -> None:
    """Write the weights that are trained, all or nothing."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    trained = {
        name: weight.detach().cpu().contiguous().clone()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    draft = folder / "draft.safetensors"
    save_file(trained, draft, metadata={"about": json.dumps({"update": update})})
    draft.replace(folder / "weights.safetensors")


def load(model: Any, folder: Path) -> int:
    """Read what ``keep`` wrote into the model; returns the update."""
    import torch
    from safetensors import safe_open

    with safe_open(folder / "weights.safetensors", "pt") as kept, torch.no_grad():
        own = dict(model.named_parameters())
        for name in kept.keys():  # noqa: SIM118 (it is no dictionary)
            own[name].copy_(kept.get_tensor(name))
        return int(json.loads(kept.metadata()["about"])["update"])
