"""Episode i is a function of (seed, i), from any number of environments and from any place in it."""

import itertools
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rldistill.envs import PlayableTask, make_task
from rldistill.envs.gymnasium_envs import GymnasiumEnvs
from rldistill.errors import EnvironmentFaultError, UnendingEpisodeWarning
from rldistill.policies import Policy
from rldistill.rollout import player as player_module
from rldistill.rollout.evaluate import play_episodes
from rldistill.rollout.player import BegunEpisode, EpisodePlayer
from rldistill.seeding import episode_seed
from tests.kit.small_policies import small_policy
from tests.kit.tiny_envs import Remembering
from tests.kit.unruly_envs import FORGETFUL_TASK

SEED = 3
EPSILON = 0.2
# Name, settings, network, episodes: seven of them occupy each of seven environments, or one environment seven times.
TASKS = {
    "CartPole": ("CartPole-v1", {}, "mlp:8", 15),
    "LunarLander": ("LunarLander-v3", {"max_episode_steps": 80}, "mlp:8", 9),
    "Pong": ("atari:pong", {"max_frames": 160, "noop_max": 30}, "conv:4-4:8", 8),
}


@pytest.fixture(scope="module", params=TASKS)
def game(request) -> tuple[PlayableTask, Policy, int]:
    name, options, network, num_episodes = TASKS[request.param]
    playable = make_task(name, options)
    return playable, small_policy(playable.task, network=network), num_episodes


def play(task: PlayableTask, policy: Policy, episodes, num_envs: int, *, seed: int = SEED, epsilon: float = EPSILON):
    """Return per episode all that was seen, said and done, step by step."""
    envs = task.make_envs(num_envs, 1)
    player = EpisodePlayer(policy, envs, episodes, seed=seed, exploration_epsilon=epsilon, labellers={"policy": policy})
    return record(player.play(), envs)


def record(steps, envs):
    played: dict[int, list[tuple]] = {}
    for step in steps:
        for row, episode in enumerate(step.episodes.tolist()):
            so_far = played.setdefault(episode, [])
            assert step.steps[row] == len(so_far)
            so_far.append(
                (
                    step.observations[row].tobytes(),
                    step.labels["policy"].raw[row].numpy().tobytes(),
                    int(step.actions[row]),
                    float(step.rewards[row]),
                    bool(step.terminated[row]),
                    bool(step.truncated[row]),
                    step.next_observations[row].tobytes(),
                )
            )
    envs.close()
    return played


def test_the_same_episodes_result_from_1_from_4_and_from_7_environments(game):
    task, policy, num_episodes = game
    alone = play(task, policy, range(num_episodes), 1)
    assert sorted(alone) == list(range(num_episodes))
    assert all(steps[-1][4] or steps[-1][5] for steps in alone.values())
    for num_envs in (4, 7):
        assert play(task, policy, range(num_episodes), num_envs) == alone


@pytest.mark.parametrize("name", ["CartPole", "LunarLander"])
def test_scores_lengths_and_seeds_do_not_depend_on_the_number_of_environments(name):
    task_name, options, network, num_episodes = TASKS[name]
    task = make_task(task_name, options)
    policy = small_policy(task.task, network=network)
    results = []
    for num_envs in (1, 4, 7):
        envs = task.make_envs(num_envs, 1)
        results.append(play_episodes(policy, envs, range(num_episodes), seed=SEED, exploration_epsilon=EPSILON))
        envs.close()
    assert results[0] == results[1] == results[2]
    assert [episode.seed for episode in results[0].episodes] == [episode_seed(SEED, i) for i in range(num_episodes)]


def test_an_episode_does_not_depend_on_which_others_are_played(game):
    task, policy, _ = game
    together = play(task, policy, range(4), 4)
    assert play(task, policy, [3, 1], 2) == {3: together[3], 1: together[1]}


def test_another_seed_gives_other_episodes(game):
    task, policy, _ = game
    first, second = (play(task, policy, range(2), 2, seed=seed) for seed in (SEED, SEED + 1))
    assert all(first[number] != second[number] for number in first)


def test_at_epsilon_1_a_policy_plays_as_random_play_does():
    task = make_task("CartPole-v1")
    policies = [small_policy(task.task, network="mlp:8", seed=seed) for seed in (0, 1)]
    played = [play(task, policy, range(3), 2, epsilon=1.0) for policy in policies]
    actions = [{number: [step[2] for step in steps] for number, steps in one.items()} for one in played]
    assert actions[0] == actions[1]


def test_a_sampling_policy_draws_from_its_episodes_generator():
    task = make_task("CartPole-v1")
    policy = small_policy(task.task, network="mlp:8", output_kind="logits", behaviour="sample")
    played = [play(task, policy, range(5), num_envs, epsilon=0.0) for num_envs in (1, 3)]
    assert played[0] == played[1]
    greedy = play(task, policy.with_spec(behaviour="greedy"), range(5), 3, epsilon=0.0)
    assert played[0] != greedy


def begun(task: PlayableTask, played, lengths: dict[int, int]) -> dict[int, BegunEpisode]:
    fingerprint = task.task.fingerprint
    episodes = {}
    for number, length in lengths.items():
        last = np.frombuffer(played[number][length - 1][0], fingerprint.observation_dtype)
        actions = np.array([step[2] for step in played[number][:length]])
        episodes[number] = BegunEpisode(actions, last.reshape(fingerprint.observation_shape))
    return episodes


def test_episodes_wound_forward_go_on_as_they_would_have(game):
    task, policy, _ = game
    whole = play(task, policy, range(5), 3)
    # As after a kill: three are under way, at different places, and 0 and 2 may have ended long ago.
    lengths = {number: max(1, len(whole[number]) * share // 10) for number, share in ((1, 9), (3, 5), (4, 1))}
    envs = task.make_envs(4, 1)
    player = EpisodePlayer(policy, envs, itertools.chain([2]), seed=SEED, exploration_epsilon=EPSILON)
    assert player.wind_forward(begun(task, whole, lengths)) == []
    rest: dict[int, list[tuple]] = {}
    for step in player.play():
        for row, episode in enumerate(step.episodes.tolist()):
            assert step.steps[row] == lengths.get(episode, 0) + len(rest.setdefault(episode, []))
            rest[episode].append((step.observations[row].tobytes(), int(step.actions[row]), float(step.rewards[row])))
    envs.close()
    expected = {
        number: [(step[0], step[2], step[3]) for step in whole[number][length:]]
        for number, length in (lengths | {2: 0}).items()
    }
    assert rest == expected


def test_an_environment_that_remembers_its_resets_still_repeats_its_episodes():
    task = make_task(Remembering)
    policy = small_policy(task.task, network="mlp:4")
    assert play(task, policy, range(9), 1) == play(task, policy, range(9), 4)


def test_an_environment_that_forgets_its_seed_is_reported_and_its_episodes_are_given_up():
    task = make_task(FORGETFUL_TASK)
    policy = small_policy(task.task, network="mlp:4")
    whole = play(task, policy, range(2), 2)
    beginnings = begun(task, whole, {0: 5, 1: 2})
    envs = task.make_envs(2, 1)
    player = EpisodePlayer(policy, envs, [7], seed=SEED, exploration_epsilon=EPSILON, labellers={"policy": policy})
    assert player.wind_forward(beginnings) == [0, 1]
    assert sorted(record(player.play(), envs)) == [7], "a slot that was given up plays the next episode"


def test_slots_without_an_episode_stay_idle():
    task = make_task("CartPole-v1")
    policy = small_policy(task.task, network="mlp:8")
    envs = task.make_envs(5, 1)
    assert isinstance(envs, GymnasiumEnvs)
    player = EpisodePlayer(policy, envs, range(2), seed=SEED, exploration_epsilon=0.0)
    sizes = [len(step.episodes) for step in player.play()]
    assert max(sizes) == 2


class FarBox(gymnasium.Env[np.ndarray, np.ndarray]):
    """Takes nothing but actions of a box without 0; its episodes have different lengths."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Box(np.array([1, -3, -1], np.float32), np.array([2, -2, np.inf], np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._num_left = int(self.np_random.integers(3, 9))
        return np.zeros(2, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self._num_left -= 1
        return np.zeros(2, np.float32), 1.0, self._num_left == 0, False, {}


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_idle_slots_of_a_vector_environment_are_given_an_action_of_its_box(mode):
    task = make_task(SyncVectorEnv([FarBox] * 4, autoreset_mode=mode))
    policy = small_policy(task.task, network="mlp:4", output_kind="gaussian")
    envs = task.make_envs(4, 1)
    player = EpisodePlayer(policy, envs, range(6), seed=SEED, exploration_epsilon=0.0)
    sizes = [len(step.episodes) for step in player.play()]
    assert min(sizes) < 4, "some slots were idle"


class Endless(gymnasium.Env[np.ndarray, int]):
    """Ends an episode after `num_steps`, or never."""

    def __init__(self, num_steps: int | None = None) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._num_steps, self._step = num_steps, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._step += 1
        return np.zeros(2, np.float32), 1.0, self._step == self._num_steps, False, {}


gymnasium.register("Endless-v0", entry_point=Endless)


@pytest.mark.parametrize("num_steps", [2, 3])
def test_an_episode_that_ends_while_it_is_wound_forward_came_out_differently(num_steps):
    task = make_task(lambda: Endless(num_steps))
    envs = task.make_envs(2, 1)
    policy = small_policy(task.task, network="mlp:4")
    player = EpisodePlayer(policy, envs, [7], seed=SEED, exploration_epsilon=0.0, labellers={"policy": policy})
    seen = np.zeros(2, np.float32)
    beginnings = {0: BegunEpisode(np.zeros(3, np.int64), seen), 1: BegunEpisode(np.zeros(1, np.int64), seen)}
    assert player.wind_forward(beginnings) == [0]
    assert {number: len(steps) for number, steps in end_of(player, envs).items()} == {1: num_steps - 1, 7: num_steps}


def end_of(player, envs) -> dict[int, list]:
    """Return the rest of all episodes, by their number."""
    rest: dict[int, list] = {}
    for step in player.play():
        for row, episode in enumerate(step.episodes.tolist()):
            rest.setdefault(episode, []).append(step.rewards[row])
    envs.close()
    return rest


@pytest.fixture
def short_patience(monkeypatch):
    """Look every 5 steps, tell after 10, give up after 30."""
    for name, value in (("_STEPS_BETWEEN_LOOKS", 5), ("LONG_EPISODE", 10), ("LONGEST_EPISODE", 30)):
        monkeypatch.setattr(player_module, name, value)


def played_of(task, num_episodes=2, num_envs=2):
    envs = task.make_envs(num_envs, 1)
    return play_episodes(small_policy(task.task), envs, range(num_episodes), seed=0, exploration_epsilon=0.0)


@pytest.mark.parametrize(
    ("task", "way"),
    [
        ("Endless-v0", """--env-kwargs '{"max_episode_steps": 1000}' (in Python env_kwargs=)"""),
        (Endless, "wrap what the callable makes in gymnasium.wrappers.TimeLimit"),
    ],
)
def test_an_environment_that_never_ends_is_told_once_and_then_given_up(short_patience, task, way):
    playable = make_task(task)
    with warnings.catch_warnings(record=True) as caught, pytest.raises(EnvironmentFaultError) as stopped:
        warnings.simplefilter("always")
        played_of(playable)
    name = playable.task.name
    assert [str(warning.message) for warning in caught if warning.category is UnendingEpisodeWarning] == [
        f"Task {name!r}: an episode has not ended after 10 decisions. If the environment never ends one, give it a "
        f"limit: {way}. After 30 decisions the episode is given up with an error."
    ]
    assert str(stopped.value) == (
        f"Task {name!r}: an episode has not ended after 30 decisions, expected an end. The environment seems to have "
        f"none. Give it one: {way}."
    )


def test_atari_ends_its_own_episodes_and_nobody_is_told(short_patience):
    playable = make_task("atari:breakout", {"max_frames": 200})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        played = played_of(playable, num_episodes=1, num_envs=1)
    assert played.episodes[0].length > 30


def test_the_limit_that_is_named_works_for_ids_without_one(short_patience):
    played = played_of(make_task("Endless-v0", {"max_episode_steps": 7}), num_episodes=9)
    assert [episode.length for episode in played.episodes] == [7] * 9


def test_many_short_episodes_are_no_long_one(short_patience):
    played = played_of(make_task(lambda: Endless(9)), num_episodes=12, num_envs=1)
    assert [episode.length for episode in played.episodes] == [9] * 12


def test_patience_is_longer_than_any_episode_of_atari():
    assert player_module.LONGEST_EPISODE > 10 * 108_000 // 4
