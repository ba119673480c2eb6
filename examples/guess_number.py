"""An environment for reinforcement learning: guess a number, hear whether it is higher or lower.

    llmstages run recipe=practice model.path=FOLDER rl=environment evaluate=environment \
        problems=environment problems.environments.guess=./examples/guess_number.py:GuessNumber
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass


@dataclass
class Turn:
    """What an environment returns: what the model reads next, what it earned, whether it ends."""

    observation: str
    reward: float = 0.0
    done: bool = False


class GuessNumber:
    """Pays 1 for the number, and a little for a reply that holds any number."""

    def __init__(self, highest: int = 9, tries: int = 4) -> None:
        self.highest = highest
        self.tries = tries

    def reset(self, seed: int) -> Turn:
        """Think of a number that follows from the seed."""
        self.secret = random.Random(seed).randint(1, self.highest)
        self.left = self.tries
        return Turn(f"Guess a number from 1 to {self.highest}. Say the number alone.")

    def step(self, action: str) -> Turn:
        """Read the first number of a reply."""
        self.left -= 1
        is_last = self.left == 0
        found = re.search(r"\d+", action)
        if not found:
            return Turn("That is no number.", done=is_last)
        guess = int(found[0])
        if guess == self.secret:
            return Turn("Right.", reward=1.0, done=True)
        hint = "higher" if guess < self.secret else "lower"
        return Turn(f"It is {hint}.", reward=0.02, done=is_last)
