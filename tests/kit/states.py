"""Decisions of a policy that remembers, step by step."""

import numpy as np
import torch

from rldistill.policies import TorchPolicy, choose_actions


def played(policy: TorchPolicy, rows: np.ndarray, begins: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple]:
    """Return outputs and actions for observations of episodes that begin at some steps, and the state before each."""
    raw, actions, before, state = [], [], [], None
    for step, row in enumerate(rows):
        state = policy.initial_state(1) if step in begins else state
        before.append(state)
        output, state = policy(row[None], state)
        raw.append(output.raw[0].numpy())
        actions.append(choose_actions(output, "greedy").reshape(-1))
    return np.stack(raw), np.stack(actions), tuple(torch.cat(parts) for parts in zip(*before, strict=True))
