"""An experiment so small that a test does all of it; and results of one, made up."""

from pathlib import Path

TEXT = """
# rldistill reproduce small.toml --budget tiny
title = "Which loss"
section = "section 0"
kind = "single_task"
paper_games = ["pong", "qbert"]
paper_order = ["kl", "nll"]

[[arms]]
name = "kl"
loss = "sharpened_kl"
temperature = 0.1
paper = 0.9

[[arms]]
name = "nll"
loss = "nll"

[budgets.tiny]
games = ["pong", "breakout"]
num_seeds = 2
env = { max_frames = 80, noop_max = 2 }
train_teacher = { network = "conv:4-4:8", num_steps = 32, num_envs = 2, rollout_length = 8, num_minibatches = 2 }
collect = { num_steps = 160 }
distill = { student = "conv:4-4:8", num_updates = 2, batch_size = 8, temperature = 0.5, learning_rate = 1e-3 }
evaluate = { num_episodes = 5 }
"""


def write_experiment(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write the experiment, with some of its text replaced."""
    text = TEXT
    for old, new in changes:
        assert old in text, f"the experiment does not say {old!r}"
        text = text.replace(old, new)
    path = folder / "small.toml"
    path.write_text(text)
    return path
