"""The replay against a plain list of stacked arrays: every stack, every transition, whatever ends, drops and stops."""

import json
import os
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rldistill.data import FieldSpec, Replay, StepLayout
from rldistill.errors import DatasetError, DiskFullError
from rldistill.storage import write_json
from tests.data.made_up import naive_stack
from tests.kit.interruptions import full_disk

GAMMA = 0.5


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


FIELDS = {
    "action": FieldSpec("int32", (), "action"),
    "reward": FieldSpec("float32", (), "reward"),
    "discount": FieldSpec("float32", (), "discount"),
}


def make_layout(frame_stack=3, vector=False):
    row = FieldSpec("float32", (2,), "observation") if vector else FieldSpec("uint8", (3, 2), "observation")
    shape = row.shape if frame_stack == 1 else (frame_stack, *row.shape)
    return StepLayout(shape, frame_stack, {"observation": row}, FIELDS)


@dataclass
class Step:
    """One step as a plain learner would keep it: everything stacked, twice."""

    number: int
    observation: np.ndarray
    action: int
    reward: float
    discount: float
    next_observation: np.ndarray
    ended: bool
    following: "Step | None" = None


class Game:
    """One slot: episodes of random lengths that terminate, are truncated, and lose lives on the way."""

    def __init__(self, layout, seed):
        self._layout, self._rng = layout, np.random.default_rng(seed)
        self._begin()

    def _row(self):
        spec = self._layout.observation_fields["observation"]
        return (self._rng.random(spec.shape) * 250 + 1).astype(spec.dtype)

    def _begin(self):
        self._rows, self._left, self._last = [self._row()], int(self._rng.integers(1, 25)), None

    def step(self, number):
        """Play one step and return it; its number is its `reward` too, so that it can be found again."""
        self._rows.append(self._row())
        self._left -= 1
        ended = self._left == 0
        is_cut = self._rng.random() < (0.5 if ended else 0.15)  # terminated, or a lost life
        at, stack = len(self._rows) - 2, self._layout.frame_stack
        step = Step(
            number,
            naive_stack(np.stack(self._rows), at, stack),
            int(self._rng.integers(5)),
            float(number),
            0.0 if is_cut else GAMMA,
            naive_stack(np.stack(self._rows), at + 1, stack),
            ended,
        )
        if self._last is not None:
            self._last.following = step
        self._last = step
        if ended:
            self._begin()
        return step

    def break_off(self):
        self._begin()


def play(replay, games, num_locksteps, steps):
    for _ in range(num_locksteps):
        batch = [game.step(len(steps) + slot) for slot, game in enumerate(games)]
        steps += batch
        replay.append(
            np.stack([step.observation for step in batch]),
            {name: np.array([getattr(step, name) for step in batch], spec.dtype) for name, spec in FIELDS.items()},
            ended=np.array([step.ended for step in batch]),
            next_observations=np.stack([step.next_observation for step in batch]),
        )


def expected_transition(step, num_return_steps, known):
    """Return, discount and next observation the slow way; None where the replay cannot know them."""
    total, factor = 0.0, 1.0
    for _ in range(num_return_steps):
        total += factor * step.reward
        factor *= step.discount
        if step.ended:
            return total, factor, step.next_observation
        observation = step.next_observation
        if step.following is None or step.following.number not in known:
            return None
        step = step.following
    return total, factor, observation


def check(replay, steps, num_return_steps):
    """Compare everything that is sealed."""
    stored = np.arange(replay.num_steps)
    numbers = replay.field("reward").astype(int)
    known = set(numbers.tolist())
    assert len(known) == replay.num_steps
    np.testing.assert_array_equal(
        replay.store.observations(stored).reshape(len(stored), *replay.layout.observation_shape),
        np.array([steps[number].observation for number in numbers]).reshape(
            len(stored), *replay.layout.observation_shape
        ),
    )
    wanted = {number: expected_transition(steps[number], num_return_steps, known) for number in known}
    drawable = {number for number, expected in wanted.items() if expected is not None}
    assert replay.num_drawable == len(drawable)
    if not drawable:
        return
    drawn = replay.draw(np.random.default_rng(0).random(3 * len(drawable)))
    assert set(numbers[drawn].tolist()) <= drawable
    transitions = replay.transitions(drawn)
    for index, number in enumerate(numbers[drawn].tolist()):
        total, factor, next_observation = wanted[number]
        assert transitions.actions[index] == steps[number].action
        assert transitions.returns[index] == pytest.approx(total)
        assert transitions.discounts[index] == factor
        np.testing.assert_array_equal(transitions.observations[index], steps[number].observation)
        np.testing.assert_array_equal(transitions.next_observations[index], next_observation)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    num_slots=st.integers(1, 4),
    num_return_steps=st.integers(1, 4),
    frame_stack=st.sampled_from([1, 3, 4]),
    capacity=st.integers(20, 200),
    steps_per_chunk=st.integers(1, 60),
    parts=st.lists(st.integers(1, 40), min_size=1, max_size=3),
)
def test_every_stack_and_every_transition_equals_the_plain_reference(
    seed, num_slots, num_return_steps, frame_stack, capacity, steps_per_chunk, parts
):
    layout = make_layout(frame_stack)
    replay = Replay(layout, capacity, num_return_steps=num_return_steps, steps_per_chunk=steps_per_chunk)
    games, steps = [Game(layout, [seed, slot]) for slot in range(num_slots)], []
    for num_locksteps in parts:
        play(replay, games, num_locksteps, steps)
        check(replay, steps, num_return_steps)
    replay.seal()
    check(replay, steps, num_return_steps)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31), num_slots=st.integers(1, 3), parts=st.lists(st.integers(1, 60), min_size=2, max_size=3)
)
def test_a_replay_that_was_saved_and_loaded_goes_on_with_new_episodes(tmp_path_factory, seed, num_slots, parts):
    layout, folder = make_layout(), tmp_path_factory.mktemp("replay")
    replay = Replay(layout, 200, num_return_steps=2, steps_per_chunk=30)
    games, steps = [Game(layout, [seed, slot]) for slot in range(num_slots)], []
    for num_locksteps in parts:
        for game in games:
            game.break_off()
        save(replay, folder)
        replay = load(folder, layout, num_return_steps=2)
        play(replay, games, num_locksteps, steps)
        check(replay, steps, 2)
        assert replay.num_appended == len(steps)


def save(replay, folder):
    """Write what is new, list it, delete the rest: what a checkpoint does."""
    write_json(folder / "replay.json", replay.write(folder))
    replay.prune(folder)


def load(folder, layout, *, num_return_steps=0):
    replay = Replay(layout, 1, num_return_steps=num_return_steps)
    replay.read(folder, json.loads((folder / "replay.json").read_text()))
    return replay


def filled(num_locksteps=100, capacity=1000, **options):
    layout = make_layout()
    replay, steps = Replay(layout, capacity, **{"num_return_steps": 1, "steps_per_chunk": 50} | options), []
    play(replay, [Game(layout, slot) for slot in range(2)], num_locksteps, steps)
    return replay, steps


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_vectors_are_kept_whole():
    layout = make_layout(frame_stack=1, vector=True)
    replay, steps = Replay(layout, 100, num_return_steps=1), []
    play(replay, [Game(layout, 0)], 60, steps)
    check(replay, steps, 1)


def test_the_oldest_chunks_go_when_there_are_more_steps_than_the_capacity():
    replay, _ = filled(400, capacity=200)
    replay.seal()
    assert 150 <= replay.num_steps <= 200
    assert replay.num_appended == 800
    assert replay.field("reward").min() >= 600


def test_without_return_steps_every_sealed_step_can_be_drawn():
    replay, steps = filled(num_return_steps=0)
    replay.seal()
    assert replay.num_drawable == len(steps) == 200


def test_steps_are_drawn_uniformly():
    replay, _ = filled(500)
    counts = np.bincount(replay.draw(np.random.default_rng(0).random(200_000)), minlength=replay.num_steps)
    counts = counts[counts > 0]
    assert len(counts) == replay.num_drawable
    expected = 200_000 / len(counts)
    # Chi-square over ~950 cells: mean 950, standard deviation 44.
    assert ((counts - expected) ** 2 / expected).sum() < len(counts) + 6 * (2 * len(counts)) ** 0.5


def test_what_is_given_away_is_copied():
    replay = Replay(make_layout(), 100, num_return_steps=0)
    observations, reward = np.ones((1, 3, 3, 2), np.uint8), np.ones(1, np.float32)
    values = {"action": np.zeros(1, np.int32), "reward": reward, "discount": np.zeros(1, np.float32)}
    replay.append(observations, values, ended=np.array([True]), next_observations=observations)
    observations[:], reward[:] = 9, 9
    replay.seal()
    assert replay.store.observations(np.array([0])).max() == 1
    assert replay.field("reward").tolist() == [1.0]


def test_a_second_save_writes_new_chunks_only_and_deletes_dropped_ones(tmp_path):
    replay, steps = filled(100, capacity=300)
    save(replay, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    games = [Game(replay.layout, slot) for slot in (5, 6)]
    play(replay, games, 100, steps)
    save(replay, tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    kept = before.keys() & after.keys() - {"replay.json"}
    assert kept
    assert all(before[name] == after[name] for name in kept)
    assert before.keys() - after.keys() == {"chunk-000000.safetensors", "chunk-000001.safetensors"}


def test_a_kill_between_the_chunks_and_the_manifest_leaves_the_replay_of_before(tmp_path):
    replay, steps = filled(100, capacity=150)
    save(replay, tmp_path)
    play(replay, [Game(replay.layout, slot) for slot in (5, 6)], 100, steps)
    replay.write(tmp_path)  # and dies before it lists them
    loaded = load(tmp_path, replay.layout, num_return_steps=1)
    assert loaded.num_appended == 200
    check(loaded, steps, 1)
    # The next save overwrites what nobody listed, and deletes the rest.
    play(loaded, [Game(replay.layout, 9)], 30, steps)
    save(loaded, tmp_path)
    check(load(tmp_path, replay.layout, num_return_steps=1), steps, 1)
    assert len([name for name in names(tmp_path) if name.startswith("chunk")]) <= 4


def test_a_full_disk_leaves_the_replay_of_before(tmp_path):
    replay, steps = filled(100)
    save(replay, tmp_path)
    before = names(tmp_path)
    play(replay, [Game(replay.layout, slot) for slot in (5, 6)], 300, steps)
    with full_disk(1000), pytest.raises(DiskFullError):
        save(replay, tmp_path)
    assert names(tmp_path) == before
    assert load(tmp_path, replay.layout).num_appended == 200


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "replay.json").write_text("{}"), r"^Replay .* cannot be read: 'schema_version'\."),
        (lambda folder: (folder / "chunk-000001.safetensors").unlink(), r"^Shard .*chunk-000001.* is missing, "),
        (
            lambda folder: (folder / "chunk-000001.safetensors").write_bytes(b"x"),
            r"^Shard .*chunk-000001\.safetensors is damaged: it has 1 bytes, .*\. Begin anew with --overwrite\.$",
        ),
    ],
)
def test_a_damaged_replay_is_refused(tmp_path, damage, message):
    replay, _ = filled()
    save(replay, tmp_path)
    damage(tmp_path)
    with pytest.raises(DatasetError, match=message):
        load(tmp_path, replay.layout)


def test_a_block_that_does_not_decompress_is_told_with_the_remedy_of_a_run(tmp_path):
    replay, _ = filled()
    save(replay, tmp_path)
    loaded = load(tmp_path, replay.layout)
    blocks = loaded.store._rows["observation"]._blocks
    blocks[0] = blocks[0][:20]
    with pytest.raises(DatasetError, match=r"^The replay is damaged: block 0, .*\. Begin anew with --overwrite\.$"):
        loaded.store.observations(np.array([0]))


def test_a_replay_of_other_fields_is_refused(tmp_path):
    replay, _ = filled()
    save(replay, tmp_path)
    with pytest.raises(DatasetError, match=r"it is of another version, or of another task's fields\."):
        load(tmp_path, make_layout(frame_stack=4))


def test_a_capacity_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"^capacity must be ≥ 1 and num_return_steps ≥ 0, got 0 and 1\.$"):
        Replay(make_layout(), 0, num_return_steps=1)
