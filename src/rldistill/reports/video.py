"""Films: several policies at the same episode, side by side, as MP4.

Each policy plays by its own behaviour through `EpisodePlayer`: the episode is the one that `evaluate` plays for this
seed and index, with the same score. A network must see exactly what it sees in play, so the film is not made from its
observations. Atari runs a second emulator with the same seed and the same actions, in colour and in the console's own
resolution; a Gymnasium environment renders itself.
"""

import contextlib
import io
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ale_py
import gymnasium
import numpy as np
from ale_py import roms
from numpy.typing import NDArray

from rldistill.envs import EpisodeEnvs, PlayableTask
from rldistill.envs.atari import AtariEnvs
from rldistill.envs.extended import ExtendedEnvs, ObservationSettings
from rldistill.envs.gymnasium_envs import GymnasiumEnvs, close_all, older_versions_allowed
from rldistill.envs.protocol import StepBatch
from rldistill.envs.task_modules import PYTHON_PREFIX
from rldistill.errors import RldistillError, UsageError, optional_import
from rldistill.policies import Policy, RandomPolicy, fit_policy
from rldistill.reports.canvas import POLICY_COLOURS, RANDOM_COLOUR
from rldistill.rollout.player import EpisodePlayer
from rldistill.rollout.threads import use_threads
from rldistill.storage import write_atomically
from rldistill.tasks import Task
from rldistill.types import Actions

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

_ATARI_FRAMES_PER_SECOND = 60
_DEFAULT_FRAMES_PER_SECOND = 30


class _FilmedEnvs(EpisodeEnvs, Protocol):
    """One slot with a screen."""

    @property
    def decisions_per_second(self) -> float:
        """Decisions in a second of the game's own time."""
        ...

    def frame(self) -> NDArray[np.uint8]:
        """Return what a person would see now, `[H, W, 3]`."""
        ...


def make_filmed_envs(playable: PlayableTask) -> _FilmedEnvs:
    """Return one slot of a task, with a screen. Raises RldistillError: the task cannot be filmed; says why."""
    task = playable.task
    if task.is_atari:
        return _AtariScreen(task)
    if task.name.startswith(PYTHON_PREFIX) or playable.fixed_num_envs is not None:
        raise RldistillError(
            f"Task {task.name!r} cannot be filmed: it was given as a Python object, and a film makes its own "
            'environment with render_mode="rgb_array". Register it with Gymnasium and give its id.'
        )
    return _GymnasiumScreen(task)


class _AtariScreen:
    """An emulator for the policy and one for people, in step."""

    num_envs = 1

    def __init__(self, task: Task) -> None:
        self._frame_skip = task.fingerprint.frame_skip
        self._player = AtariEnvs(task, 1, num_threads=1)
        interface = ale_py.ALEInterface()
        interface.loadROM(str(roms.get_rom_path(task.game)))
        height, width = map(int, interface.getScreenDims())
        fingerprint = replace(task.fingerprint, observation_shape=(1, height, width), frame_stack=1)
        self._screen = AtariEnvs(replace(task, fingerprint=fingerprint), 1, num_threads=1, grayscale=False)
        self._frame = np.zeros((1, 1, 3), np.uint8)

    @property
    def decisions_per_second(self) -> float:
        return _ATARI_FRAMES_PER_SECOND / self._frame_skip

    def reset(self, slots: Sequence[int], seeds: Sequence[int] | None) -> NDArray[np.generic]:
        self._frame = self._screen.reset(slots, seeds)[0, -1].astype(np.uint8)
        return self._player.reset(slots, seeds)

    def step(self, actions: Actions) -> StepBatch:
        seen, played = self._screen.step(actions), self._player.step(actions)
        in_step = bool((seen.rewards == played.rewards).all() and (seen.ended == played.ended).all())
        assert in_step, "the film shows another play than the policy's"
        self._frame = seen.observations[0, -1].astype(np.uint8)
        return played

    def start_ids(self) -> NDArray[np.int64] | None:
        return self._player.start_ids()

    def info(self, name: str, slots: Iterable[int]) -> list[Any]:
        return self._player.info(name, slots)

    def frame(self) -> NDArray[np.uint8]:
        return self._frame

    def close(self) -> None:
        self._player.close()
        self._screen.close()


class _GymnasiumScreen:
    """An environment that draws itself."""

    num_envs = 1

    def __init__(self, task: Task) -> None:
        self._task = task
        self._made: list[gymnasium.Env[Any, Any]] = []
        plain, settings = GymnasiumEnvs(self._make, 1, task.name), ObservationSettings.of(task.fingerprint)
        self._envs = ExtendedEnvs(plain, settings) if settings.num_appended else plain

    @property
    def decisions_per_second(self) -> float:
        return float(self._made[-1].metadata.get("render_fps") or _DEFAULT_FRAMES_PER_SECOND)

    def reset(self, slots: Sequence[int], seeds: Sequence[int] | None) -> NDArray[np.generic]:
        return self._envs.reset(slots, seeds)

    def step(self, actions: Actions) -> StepBatch:
        return self._envs.step(actions)

    def start_ids(self) -> None:
        return None

    def info(self, name: str, slots: Iterable[int]) -> list[Any]:
        return self._envs.info(name, slots)

    def frame(self) -> NDArray[np.uint8]:
        # The newest: an environment that may remember is built anew for its next episode.
        return np.asarray(self._made[-1].render(), np.uint8)

    def close(self) -> None:
        self._envs.close()

    def _make(self) -> gymnasium.Env[Any, Any]:
        name, kwargs = self._task.name, self._task.environment_kwargs
        # Asked of one without a screen first: Gymnasium only warns about a mode that an environment lacks.
        with older_versions_allowed():
            plain = gymnasium.make(name, **kwargs)
        modes: list[str] = list(plain.metadata.get("render_modes") or [])
        close_all(f"Task {name!r}", [plain])
        if "rgb_array" not in modes:
            raise RldistillError(
                f"Task {name!r} cannot be filmed: it renders as {', '.join(modes) or 'nothing'}, expected 'rgb_array'."
            )
        with older_versions_allowed():
            self._made.append(gymnasium.make(name, render_mode="rgb_array", **kwargs))
        return self._made[-1]


# One emulator pixel becomes 2 × 2: large enough to see the ball. Larger screens stay as they are.
_ENLARGED_BELOW_WIDTH = 240
_CAPTION_HEIGHT, _FOOTER_HEIGHT, _GAP = 40, 28, 8
_HOLD_SECONDS = 1.5
_BACKGROUND, _CAPTION_BACKGROUND, _WHITE, _FAINT = (0, 0, 0), (24, 24, 24), (245, 245, 245), (170, 170, 170)


@dataclass(frozen=True)
class _Moment:
    """One panel at one moment: picture `[H, W, 3]`, score so far, whether the episode is over."""

    frame: NDArray[np.uint8]
    score: float
    is_over: bool


@contextlib.contextmanager
def _no_display_searched() -> Generator[None]:
    """Let SDL, with which many environments draw, search for no display where there is none: it would complain."""
    if any(name in os.environ for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY")):
        yield
        return
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    try:
        yield
    finally:
        # An environment of the user may have changed it too.
        os.environ.pop("SDL_VIDEODRIVER", None)


@_no_display_searched()
def side_by_side(
    policies: Sequence[tuple[str, Policy]],
    task: PlayableTask,
    out: Path,
    *,
    seed: int,
    exploration_epsilon: float,
    max_steps: int = 600,
    on_step: Callable[[int], None] | None = None,
) -> Path:
    """Film policies at the first episode of a seed, from its start; returns `out`.

    The film ends when all episodes have ended, or after `max_steps` decisions, and rests on its
    last picture for a moment. A policy whose episode ends earlier keeps its last picture.

    Args:
        policies: name and policy, left to right.
        task: what they play.
        out: `.mp4` (H.264, plays everywhere).
        seed: of the episodes.
        exploration_epsilon: chance of a uniformly random action.
        max_steps: decisions to film at most.
        on_step: called with the number of decisions filmed; may raise to stop.

    Raises:
        UsageError: no policy, or `max_steps` below 1.
        MismatchError: a policy does not fit the task.
        RldistillError: the task cannot be filmed, or a package is missing.
    """
    if not policies:
        raise UsageError("A film needs at least one policy.")
    if max_steps < 1:
        raise UsageError(f"max_steps must be 1 or more, got {max_steps}.")
    fitted = [fit_policy(policy, task.task) for _, policy in policies]
    screens: list[_FilmedEnvs] = []
    try:
        for _ in policies:
            screens.append(make_filmed_envs(task))  # noqa: PERF401 (those made before one fails are closed)
        films = [
            _moments(policy, screen, seed, exploration_epsilon, max_steps)
            for policy, screen in zip(fitted, screens, strict=True)
        ]
        rate = screens[0].decisions_per_second
        footer = f"{task.task.name} · seed {seed}, episode 0 · ε {exploration_epsilon:g}"
        layout = _Layout([name for name, _ in policies], _colours(fitted), footer, rate)
        pictures = layout.pictures(_together(films, on_step), num_held=round(_HOLD_SECONDS * rate))
        with use_threads(1):  # one observation at a time keeps one processor busy; more only wait for each other
            write_atomically(out, _mp4(pictures, rate))
    finally:
        for screen in screens:
            screen.close()
    return out


def _moments(
    policy: Policy, envs: _FilmedEnvs, seed: int, exploration_epsilon: float, max_steps: int
) -> Iterator[_Moment]:
    """Play the first episode; yield what each decision led to."""
    player = EpisodePlayer(policy, envs, [0], seed=seed, exploration_epsilon=exploration_epsilon)
    score = 0.0
    for number, step in enumerate(player.play()):
        score += float(step.rewards[0])
        yield _Moment(envs.frame(), score, bool(step.ended[0]))
        if number + 1 == max_steps:
            return


def _together(films: Sequence[Iterator[_Moment]], on_step: Callable[[int], None] | None) -> Iterator[list[_Moment]]:
    """Yield the moments of all films in step; one that is over rests on its last."""
    last: list[_Moment | None] = [None] * len(films)
    for number, moments in enumerate(itertools.zip_longest(*films)):
        last = [new or old for new, old in zip(moments, last, strict=True)]
        yield [moment for moment in last if moment is not None]
        if on_step:
            on_step(number + 1)


class _Layout:
    """Draws panels side by side, each under its name and score, over one footer."""

    def __init__(self, names: Sequence[str], colours: Sequence[str], footer: str, rate: float) -> None:
        self._titles = list(zip(names, colours, strict=True))
        self._footer = footer
        self._rate = rate
        self._fonts = {size: _font(size) for size in (13, 18)}

    def pictures(self, moments: Iterator[list[_Moment]], *, num_held: int) -> "Iterator[Image]":
        """Yield one picture per moment, and the last one again."""
        picture: Image | None = None
        for number, panels in enumerate(moments):
            picture = self.picture(panels, seconds=(number + 1) / self._rate)
            yield picture
        if picture is not None:
            yield from itertools.repeat(picture, num_held)

    def picture(self, panels: Sequence[_Moment], *, seconds: float) -> "Image":
        """Return one picture; its sides are even numbers, as H.264 wants them."""
        from PIL import Image, ImageDraw

        height, width = panels[0].frame.shape[:2]
        scale = 2 if width < _ENLARGED_BELOW_WIDTH else 1
        height, width = height * scale, width * scale
        total = width * len(panels) + _GAP * (len(panels) - 1)
        rows = _CAPTION_HEIGHT + height + _FOOTER_HEIGHT
        picture = Image.new("RGB", (total + total % 2, rows + rows % 2), _BACKGROUND)
        draw = ImageDraw.Draw(picture)
        for index, ((name, colour), panel) in enumerate(zip(self._titles, panels, strict=True)):
            left = index * (width + _GAP)
            frame = panel.frame.repeat(scale, axis=0).repeat(scale, axis=1)
            picture.paste(Image.fromarray(frame), (left, _CAPTION_HEIGHT))
            draw.rectangle((left, 0, left + width - 1, _CAPTION_HEIGHT - 1), fill=_CAPTION_BACKGROUND)
            draw.rectangle((left, 0, left + width - 1, 3), fill=colour)
            middle = 4 + (_CAPTION_HEIGHT - 4) // 2
            score = _score(panel)
            room = width - 20 - self._fonts[18].getlength(f" {score}")
            draw.text((left + 10, middle), self._fitting(name, room), fill=_WHITE, font=self._fonts[18], anchor="lm")
            draw.text((left + width - 10, middle), score, fill=_WHITE, font=self._fonts[18], anchor="rm")
        middle = _CAPTION_HEIGHT + height + _FOOTER_HEIGHT // 2
        draw.text((10, middle), self._footer, fill=_FAINT, font=self._fonts[13], anchor="lm")
        draw.text((total - 10, middle), f"{seconds:.1f} s", fill=_FAINT, font=self._fonts[13], anchor="rm")
        return picture

    def _fitting(self, name: str, room: float) -> str:
        """Return a name, or as much of it as fits beside the score."""
        cuts = (f"{name[:length]}…" for length in range(len(name) - 1, 0, -1))
        return next((each for each in (name, *cuts) if self._fonts[18].getlength(each) <= room), "…")


def _score(moment: _Moment) -> str:
    points = f"{moment.score:.1f}".removesuffix(".0").replace("-", "−")
    return f"{points} · over" if moment.is_over else points


def _colours(policies: Sequence[Policy]) -> list[str]:
    """Return the colours of the curves: random play is grey in every picture."""
    others = itertools.cycle(POLICY_COLOURS)
    return [RANDOM_COLOUR if isinstance(policy, RandomPolicy) else next(others) for policy in policies]


def _font(size: int) -> "FreeTypeFont":
    matplotlib = optional_import("matplotlib", what="Making a film", extra="report")
    from PIL import ImageFont

    # The font that matplotlib brings along knows ε, − and ·.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _mp4(pictures: "Iterator[Image]", rate: float) -> bytes:
    """Encode as H.264 in yuv420p, the one combination that every browser and player shows."""
    from fractions import Fraction

    av = optional_import("av", what="Making an MP4", extra="report")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        first = next(pictures)
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
        # Flat colours and one-pixel balls: constant quality, tuned for drawings.
        stream.options = {"crf": "18", "preset": "medium", "tune": "animation"}
        for picture in itertools.chain([first], pictures):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return buffer.getvalue()
