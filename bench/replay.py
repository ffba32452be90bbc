"""How fast does a replay take steps and give transitions, and what does a step take? One thread, as in a learner."""

import numpy as np
from kit import Rates, run_alone, show, timed

from rldistill.data import FieldSpec, Replay, StepLayout
from rldistill.envs import EpisodeEnvs, StepBatch, make_task

_BATCH_SIZE = 32
_NUM_ENVS = 4
_GAMES = ("pong", "breakout", "seaquest", "space_invaders")
_FIELDS = {
    "action": FieldSpec("int32", (), "action"),
    "reward": FieldSpec("float32", (), "reward"),
    "discount": FieldSpec("float32", (), "discount"),
}


def _play(envs: EpisodeEnvs, num_actions: int, num_locksteps: int) -> list[tuple[np.ndarray, np.ndarray, StepBatch]]:
    rng = np.random.default_rng(0)
    observations = envs.reset(range(_NUM_ENVS), list(range(_NUM_ENVS)))
    played: list[tuple[np.ndarray, np.ndarray, StepBatch]] = []
    for _ in range(num_locksteps):
        actions = rng.integers(num_actions, size=_NUM_ENVS)
        step = envs.step(actions)
        played.append((observations, actions, step))
        observations = step.observations
        if step.ended.any():
            observations = envs.reset(np.flatnonzero(step.ended).tolist(), None)
    return played


def _append(replay: Replay, played: list[tuple[np.ndarray, np.ndarray, StepBatch]]) -> int:
    for observations, actions, step in played:
        values = {
            "action": actions.astype(np.int32),
            "reward": step.rewards.astype(np.float32),
            "discount": np.where(step.terminated, 0.0, 0.99).astype(np.float32),
        }
        replay.append(observations, values, ended=step.ended, next_observations=step.observations)
    return len(played) * _NUM_ENVS


def _num_bytes(replay: Replay) -> int:
    """What the sealed steps take: their chunks, and in one array each the fields and the index."""
    chunks = sum(tensor.nbytes for chunk in replay._chunks for tensor in chunk.tensors.values())
    store = replay.store
    index = (store.episodes, store.steps_in_episode, store._step_row, store.segment_of_step, store.next_steps)
    return chunks + sum(array.nbytes for array in (*map(replay.field, _FIELDS), *index, replay._drawable))


def main(*, quick: bool) -> None:
    num_locksteps, num_rounds, num_batches = (500, 3, 50) if quick else (2_500, 9, 200)
    rows: list[list[str]] = []
    for game in _GAMES[: 2 if quick else None]:
        task = make_task(f"atari:{game}").task
        envs = make_task(task).make_envs(_NUM_ENVS, 1)
        played = _play(envs, len(task.fingerprint.action_set), num_locksteps)
        envs.close()
        layout = StepLayout.of_task(task.fingerprint, _FIELDS)
        full = Replay(layout, 1_000_000, num_return_steps=1)
        _append(full, played)
        full.seal()
        rng = np.random.default_rng(0)

        def sample(full: Replay = full, rng: np.random.Generator = rng) -> int:
            return sum(len(full.transitions(full.draw(rng.random(_BATCH_SIZE))).steps) for _ in range(num_batches))

        def append(layout: StepLayout = layout, played: list[tuple[np.ndarray, np.ndarray, StepBatch]] = played) -> int:
            return _append(Replay(layout, 1_000_000, num_return_steps=1), played)

        rates = Rates({"append": timed(append), "sample": timed(sample)}, num_rounds=num_rounds)
        per_step = _num_bytes(full) / full.num_steps
        figures = (rates.median("append"), rates.median("sample"), per_step, 28_224 * 2 / per_step)
        rows.append([game, *(f"{figure:,.0f}" for figure in figures)])
    show(
        f"Replay: {num_locksteps * _NUM_ENVS:,} steps of random play in {_NUM_ENVS} environments",
        ["game", "steps appended/s", "transitions/s", "bytes per step", "times less than stacked arrays"],
        rows,
        f"medians of {num_rounds} turns, batches of {_BATCH_SIZE} transitions: two stacks of 4 frames each; "
        "stacked arrays: two stacks of 4 × 84 × 84 bytes a step",
    )
    _show_sealing(1_000_000 if not quick else 200_000)


def _show_sealing(num_steps: int) -> None:
    """What a chunk of 8,192 steps costs when the replay is full: the index of all steps is made anew."""
    layout = StepLayout((1,), 1, {"observation": FieldSpec("uint8", (1,), "observation")}, _FIELDS)
    replay = Replay(layout, num_steps, num_return_steps=3)
    values = {name: np.zeros(256, spec.dtype) for name, spec in _FIELDS.items()}
    rows, ended = np.zeros((256, 1), np.uint8), np.zeros(256, np.bool_)
    while replay.num_appended < num_steps:
        replay.append(rows, values, ended=ended, next_observations=rows)
    rates = Rates({"index": timed(lambda: replay._index() or 1)}, num_rounds=5)
    milliseconds = 1000 / rates.median("index")
    show("Sealing a chunk in a full replay", ["steps", "ms, of one chunk"], [[f"{num_steps:,}", f"{milliseconds:.0f}"]])


if __name__ == "__main__":
    run_alone(main, __doc__)
