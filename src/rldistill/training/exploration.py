"""How a learner explores: ε-greedy play, with random actions that last one step or several."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Exploration:
    """ε-greedy choices in N environments.

    With `repeat_exponent` a random action lasts for n steps, n drawn with a probability proportional to
    n^−repeat_exponent: εz-greedy (Dabney et al. 2021, "Temporally-Extended ε-Greedy Exploration", arXiv 2006.01782;
    they take 2). ε is then the chance that such a stretch begins. It finds what needs one action for long, such as
    crossing the road in Freeway, which actions drawn anew at every step never do.

    Args:
        num_envs: N.
        repeat_exponent: greater than 1; None: each random action lasts one step.
    """

    def __init__(self, num_envs: int, repeat_exponent: float | None) -> None:
        self._exponent = repeat_exponent
        self._repeated = np.zeros(num_envs, np.int64)
        self._steps_left = np.zeros(num_envs, np.int64)

    def choose(self, q_values: Tensor, epsilon: float, rng: np.random.Generator) -> NDArray[np.int64]:
        """Choose actions `[N]` by Q-values `[N, A]`."""
        greedy = q_values.argmax(dim=1).numpy()
        uniform = rng.integers(q_values.shape[1], size=len(greedy))
        begins = rng.random(len(greedy)) < epsilon
        if self._exponent is None:
            return np.where(begins, uniform, greedy)
        durations = rng.zipf(self._exponent, size=len(greedy))
        begins &= self._steps_left == 0
        self._repeated[begins], self._steps_left[begins] = uniform[begins], durations[begins]
        repeats = self._steps_left > 0
        self._steps_left[repeats] -= 1
        return np.where(repeats, self._repeated, greedy)

    def stop(self, envs: list[int]) -> None:
        """End what is repeated in these environments: a new game begins there."""
        self._steps_left[envs] = 0
