"""Films: the promised number and size of pictures, and the very play that an evaluation scores."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from rldistill.envs import PlayableTask, make_task
from rldistill.errors import RldistillError, UsageError
from rldistill.networks import parse_architecture
from rldistill.policies import RandomPolicy, TorchPolicy
from rldistill.reports.video import make_filmed_envs, side_by_side
from rldistill.rollout.evaluate import play_episodes
from rldistill.rollout.player import EpisodePlayer

av = pytest.importorskip("av")
pytest.importorskip("matplotlib")

_HELD = round(1.5 * 15)


def _network(task: PlayableTask) -> TorchPolicy:
    generator = torch.Generator().manual_seed(0)
    return TorchPolicy.create(parse_architecture("net3"), [task.task], zero_output=False, generator=generator)


def _decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_film_shows_every_decision_and_rests_on_the_last(tmp_path: Path) -> None:
    task = make_task("atari:pong")
    policies = [("network", _network(task)), ("random", RandomPolicy(task.task))]
    filmed = []
    out = side_by_side(
        policies, task, tmp_path / "film.mp4", seed=0, exploration_epsilon=0.05, max_steps=20, on_step=filmed.append
    )
    assert filmed == list(range(1, 21))
    pictures = _decoded(out)
    assert len(pictures) == 20 + _HELD
    # Caption, 210 rows twice as large, footer; two panels of 160 columns and the gap.
    assert pictures[0].shape == (40 + 420 + 28, 2 * 320 + 8, 3)
    assert np.ptp(pictures[-1][40:460, :320].astype(int)) > 100
    assert np.ptp(pictures[-1][:40, :320].astype(int)) > 100


def test_a_long_name_leaves_the_score_alone(tmp_path: Path) -> None:
    task = make_task("atari:pong")
    short, long = (
        _decoded(
            side_by_side([(name, RandomPolicy(task.task))], task, tmp_path / f"{len(name)}.mp4", seed=0,
                         exploration_epsilon=0.0, max_steps=1)
        )[0][:40, 285:]
        for name in ("a", "a" * 60)
    )  # fmt: skip
    assert np.ptp(short.astype(int)) > 100
    assert np.abs(short.astype(int) - long.astype(int)).mean() < 3


def test_an_mp4_is_h264_that_every_player_shows_at_the_games_own_speed(tmp_path: Path) -> None:
    task = make_task("atari:pong")
    out = side_by_side([("random", RandomPolicy(task.task))], task, tmp_path / "film.mp4", seed=0,
                       exploration_epsilon=0.0, max_steps=3)  # fmt: skip
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, float(stream.average_rate)) == ("h264", "yuv420p", 15.0)


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_the_colour_film_shows_the_play_that_the_policy_sees(sticky: float) -> None:
    cv2 = pytest.importorskip("cv2")
    task = make_task("atari:space_invaders", {"sticky_action_probability": sticky})
    envs = make_filmed_envs(task)
    luminance = np.array([0.299, 0.587, 0.114])
    player = EpisodePlayer(RandomPolicy(task.task), envs, [2], seed=7, exploration_epsilon=0.0)
    for number, step in enumerate(player.play()):
        assert envs.frame().shape == (210, 160, 3)
        if number % 25 == 0:
            grey = np.round(envs.frame() @ luminance).astype(np.uint8)
            shrunk = cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA).astype(int)
            assert np.abs(shrunk - step.next_observations[0, -1].astype(int)).max() <= 1
        if number == 200:
            break
    envs.close()


def test_a_filmed_episode_has_the_score_that_an_evaluation_gives_it() -> None:
    task = make_task("atari:breakout")
    policy = RandomPolicy(task.task)
    envs, filmed = task.make_envs(3, 1), make_filmed_envs(task)
    evaluated = play_episodes(policy, envs, range(3), seed=5, exploration_epsilon=0.05)
    shown = play_episodes(policy, filmed, [1], seed=5, exploration_epsilon=0.05)
    envs.close()
    filmed.close()
    assert shown.episodes[0] == evaluated.episodes[1]


def test_a_film_ends_with_the_longest_episode(tmp_path: Path) -> None:
    pytest.importorskip("pygame")
    task = make_task("CartPole-v1")
    policy = RandomPolicy(task.task)
    envs = task.make_envs(1, 1)
    length = play_episodes(policy, envs, [0], seed=3, exploration_epsilon=0.0).episodes[0].length
    out = side_by_side([("random", policy)], task, tmp_path / "film.mp4", seed=3, exploration_epsilon=0.0)
    # CartPole renders 50 pictures a second, 600 × 400 each.
    pictures = _decoded(out)
    assert len(pictures) == length + 75
    assert pictures[0].shape == (40 + 400 + 28, 600, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": []}, "at least one policy"),
        ({"max_steps": 0}, "max_steps must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_filmed_is_refused_at_once(changes: dict[str, object], message: str) -> None:
    task = make_task("atari:pong")
    arguments = {"policies": [("random", RandomPolicy(task.task))], "out": Path("film.mp4"), "max_steps": 5} | changes
    with pytest.raises(UsageError, match=message):
        side_by_side(task=task, seed=0, exploration_epsilon=0.0, **arguments)


def test_a_task_without_pictures_says_what_it_renders_as() -> None:
    task = make_task("CartPole-v1")
    blind = replace(task, task=replace(task.task, name="python:maker"))
    with pytest.raises(RldistillError, match="given as a Python object"):
        make_filmed_envs(blind)


def test_an_environment_that_cannot_render_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from gymnasium.envs.classic_control import CartPoleEnv

    monkeypatch.setattr(CartPoleEnv, "metadata", {"render_modes": ["human"]})
    with pytest.raises(RldistillError, match="renders as human, expected 'rgb_array'"):
        make_filmed_envs(make_task("CartPole-v1"))
    assert gymnasium.spec("CartPole-v1")


@pytest.mark.parametrize("package", ["av", "matplotlib"])
def test_without_the_extra_the_error_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    task = make_task("atari:pong")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        RldistillError, match=rf"needs {package}.*pip install -c constraints\.txt -e '\.\[report\]' in the checkout"
    ):
        side_by_side([("random", RandomPolicy(task.task))], task, tmp_path / "film.mp4", seed=0,
                     exploration_epsilon=0.0, max_steps=2)  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variables", "seen"),
    [({}, "dummy"), ({"DISPLAY": ":0"}, None), ({"WAYLAND_DISPLAY": "w"}, None), ({"SDL_VIDEODRIVER": "x11"}, "x11")],
)
def test_where_there_is_no_display_none_is_searched_while_a_film_is_drawn(tmp_path, monkeypatch, variables, seen):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    drivers: list[str | None] = []
    task = make_task("atari:pong")
    film = [("random", RandomPolicy(task.task))], task, tmp_path / "film.mp4"
    side_by_side(*film, seed=0, exploration_epsilon=0.0, max_steps=1,
                 on_step=lambda _: drivers.append(os.environ.get("SDL_VIDEODRIVER")))  # fmt: skip
    assert drivers == [seen]
    assert os.environ.get("SDL_VIDEODRIVER") == variables.get("SDL_VIDEODRIVER")
