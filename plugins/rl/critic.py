"""The critic of PPO: what it expects an answer to be paid, read before each token is written.

``model``: a copy of the policy's layers with a head of one number. ``head``: only the head, on the
layers of the policy itself, which saves their memory and lets the loss of the critic change them.
The head begins at 0, so the first advantages are the rewards themselves.

The critic is attached to the policy, so that one optimizer, one wrapper of DDP or DeepSpeed and one
checkpoint hold both. Its values are computed within the forward pass of the policy: a second pass
through the wrapper would end DDP with an error.
"""

from __future__ import annotations

import copy
import functools
import types
from pathlib import Path
from typing import Any

from llmstages.text.decoding import cache_argument, forward_arguments, positions_of
from llmstages.train.shared_prompts import share_in_layers

KINDS = ("model", "head")
NAME = "critic"  # of the module within the policy, and of its folder in a checkpoint
WEIGHTS = "critic.safetensors"
CRITIC_INPUTS = ("input_ids", "attention_mask", "answer_tokens")


def new_critic(policy: Any, kind: str) -> Any:
    """A critic for a policy that has no adapters yet: one of KINDS.

    Called with ``input_ids`` and ``attention_mask``, both [answers, tokens], it gives values of
    that shape in float32, or with ``answer_tokens`` those before each token of the answers alone
    (train/shared_prompts.py). That of ``head`` must be called after the policy computed the same
    tokens.
    """
    import torch

    trunk = policy.base_model
    width = policy.get_input_embeddings().weight.shape[1]

    class Critic(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(int(width), 1)
            torch.nn.init.zeros_(self.head.weight)
            torch.nn.init.zeros_(self.head.bias)

        def share_prompts(self) -> None:
            """Take ``answer_tokens`` from now on."""

        def hidden(self, **inputs: Any) -> Any:
            raise NotImplementedError

        def forward(self, **inputs: Any) -> Any:
            states = self.hidden(**inputs)
            return self.head(states.to(self.head.weight.dtype)).squeeze(-1).float()

    class OwnLayers(Critic):
        def __init__(self) -> None:
            super().__init__()
            self.layers = copy.deepcopy(trunk)
            self.takes_positions = "position_ids" in forward_arguments(type(trunk))

        def share_prompts(self) -> None:
            share_in_layers(self.layers, cache_argument(type(self.layers)))

        def hidden(self, **inputs: Any) -> Any:
            if self.takes_positions:  # prompts are padded on the left
                inputs["position_ids"] = positions_of(inputs["attention_mask"])
            return self.layers(**inputs, use_cache=False).last_hidden_state

    class PolicyLayers(Critic):
        def __init__(self) -> None:
            super().__init__()
            self.states: Any = None
            trunk.register_forward_hook(self.note)

        def note(self, module: Any, arguments: Any, outputs: Any) -> None:
            self.states = outputs.last_hidden_state

        def hidden(self, **inputs: Any) -> Any:
            states, self.states = self.states, None
            return states

    return OwnLayers() if kind == "model" else PolicyLayers()


def before_answers(values: Any, kept: int) -> Any:
    """The values before each token of the answers: those of the token before it.

    Args:
        values: of all tokens, or already those that are asked for.
        kept: tokens of the answers.
    """
    return values if values.shape[1] == kept else values[:, -kept - 1 : -1]


def values_before(critic: Any, ids: Any, mask: Any, kept: int, rows: int, shares: bool) -> Any:
    """Values before each token of answers [answers, kept], without a pass of the policy.

    Args:
        critic: see ``new_critic``.
        ids, mask: of prompts with their answers [answers, tokens].
        kept: tokens of the answers.
        rows: answers that are computed at once.
        shares: whether it computes a prompt once for its answers.
    """
    import torch

    options = {"answer_tokens": kept} if shares else {}
    parts = zip(ids.split(rows), mask.split(rows), strict=True)
    values = [critic(input_ids=part, attention_mask=own, **options) for part, own in parts]
    return before_answers(torch.cat(values), kept)


def attach(policy: Any, critic: Any) -> None:
    """Make the critic a module of the policy, whose forward pass then computes values.

    They are appended to ``policy.noted_values`` while that is a list, in passes for log
    probabilities (``fused_lm_head``), so sampling is as fast as before.
    """
    policy.add_module(NAME, critic)
    policy.noted_values = None
    inner = policy.forward

    @functools.wraps(type(policy).forward)  # generate() looks at the names of its arguments
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = inner(*args, **kwargs)
        if self.noted_values is not None and kwargs.get("fused_lm_head"):
            own = {name: kwargs[name] for name in CRITIC_INPUTS if name in kwargs}
            self.noted_values.append(critic(**own))
        return outputs

    policy.forward = types.MethodType(forward, policy)


def detach(policy: Any) -> None:
    """Undo ``attach``."""
    delattr(policy, NAME)
    del policy.noted_values
    del policy.forward


def without_critic(state: dict[str, Any]) -> dict[str, Any]:
    """The weights of the policy alone."""
    return {name: weight for name, weight in state.items() if not name.startswith(f"{NAME}.")}


def save_critic(critic: Any, folder: str | Path, state: dict[str, Any] | None = None) -> None:
    """Write the critic into the folder of a checkpoint.

    Args:
        critic: the module.
        folder: of the checkpoint.
        state: all weights of the policy, if a launcher gathered them.
    """
    from safetensors.torch import save_file

    if state is None:
        own = critic.state_dict()
    else:
        prefix = f"{NAME}."
        own = {name.removeprefix(prefix): w for name, w in state.items() if name.startswith(prefix)}
    home = Path(folder) / NAME
    home.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.contiguous() for name, weight in own.items()}, home / WEIGHTS)


def load_critic(critic: Any, folder: str | Path) -> None:
    """Read what ``save_critic`` wrote; every weight must be there."""
    from safetensors.torch import load_file

    critic.load_state_dict(load_file(Path(folder) / NAME / WEIGHTS), strict=True)
