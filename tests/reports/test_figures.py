"""Curves: what is drawn is a whole PNG of the promised size, and what cannot be drawn is said in one line."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rldistill.errors import RldistillError
from rldistill.reports.canvas import DOTS_PER_INCH, TASK_COLOURS
from rldistill.reports.figures import learning_curve

pytest.importorskip("matplotlib")

_CONFIG = """
data = ["data/gone"]
student = "net3"
loss = "sharpened_kl"
temperature = "linear:0.2->0.01"
batch_size = 128
optimizer = "adam"
learning_rate = "one_cycle:1e-3"
seed = 3
"""


def _write_run(folder: Path, records: list[dict[str, object]], config: str = _CONFIG) -> Path:
    folder.mkdir()
    (folder / "config.toml").write_text(config)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def _distillation(*, scores: bool, steepness: float = 1.0) -> list[dict[str, object]]:
    records: list[dict[str, object]] = []
    for update in range(500, 5001, 500):
        loss = 1.2 * float(np.exp(-steepness * update / 2500))
        records.append(
            {
                "update": update,
                "loss": loss,
                "held_out_loss": loss * 1.1,
                "held_out_agreement": 1 - loss / 2,
                "majority_share": 0.3,
                "temperature": 0.2,
            }
        )
        if scores and update % 2500 == 0:
            records[-1]["scores"] = [float(update) / 500, 3.0, -4.0]
    return records


def _evaluation() -> dict[str, object]:
    def policy(role: str, mean: float, interval: list[float] | None) -> dict[str, object]:
        return {
            "name": role,
            "role": role,
            "mean": mean,
            "interval": interval,
            "exploration_epsilon": 0.05,
            "degenerate": False,
            "census": interval is None,
            "episodes": [{"return": mean + offset, "length": 9, "seed": 1} for offset in (-1, 0, 1)],
        }

    policies = [policy("teacher", 18.0, [17.0, 19.0]), policy("student", 17.5, None), policy("random", -20.0, None)]
    return {"task": "atari:space_invaders", "seed": 4, "policies": policies}


def _pixels(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _has_colour(pixels: np.ndarray, colour: str) -> bool:
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return bool((pixels == wanted).all(axis=-1).sum() > 30)


_TEACHER, _STUDENT, _RANDOM = "#0072B2", "#D55E00", "#6E6E6E"


def test_a_learning_curve_without_play_has_two_panels_and_with_play_three(tmp_path: Path) -> None:
    short = learning_curve(_write_run(tmp_path / "a", _distillation(scores=False)), tmp_path / "a.png")
    long = learning_curve(_write_run(tmp_path / "b", _distillation(scores=True)), tmp_path / "b.png")
    two, three = _pixels(short), _pixels(long)
    assert two.shape[0] == three.shape[0] == int(4.75 * DOTS_PER_INCH)
    assert three.shape[1] - two.shape[1] == pytest.approx((2.85 + 1.95) * DOTS_PER_INCH, abs=2)
    assert _has_colour(two, _STUDENT)
    assert _has_colour(two, _RANDOM)
    assert not _has_colour(two, _TEACHER)


@pytest.mark.parametrize("scores", [True, False])
def test_an_evaluation_adds_teacher_and_random_play(tmp_path: Path, scores: bool) -> None:
    run = _write_run(tmp_path / "run", _distillation(scores=scores))
    out = learning_curve(run, tmp_path / "new" / "curve.png", evaluation=_evaluation())
    pixels = _pixels(out)
    assert all(_has_colour(pixels, colour) for colour in (_TEACHER, _STUDENT, _RANDOM))


def test_a_loss_that_falls_a_thousandfold_can_be_drawn(tmp_path: Path) -> None:
    run = _write_run(tmp_path / "run", _distillation(scores=False, steepness=5.0))
    assert _has_colour(_pixels(learning_curve(run, tmp_path / "curve.png")), _STUDENT)


def test_equal_runs_give_equal_files(tmp_path: Path) -> None:
    run = _write_run(tmp_path / "run", _distillation(scores=True))
    first, second = (learning_curve(run, tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    before = "matplotlib.pyplot" in sys.modules
    learning_curve(_write_run(tmp_path / "run", _distillation(scores=True)), tmp_path / "curve.png")
    assert ("matplotlib.pyplot" in sys.modules) == before


def _joint_distillation(names: list[str], *, scores: bool, key: str = "held_out_agreement") -> list[dict[str, object]]:
    return [
        {
            "update": update,
            "loss": 0.5,
            key: 0.5,
            "tasks": {
                name: {"loss": 0.5, "held_out_loss": 1 / update, key: (place + 1) / 10}
                | ({"scores": [float(place)] * 3} if scores and update == 200 else {})
                for place, name in enumerate(names)
            },
        }
        for update in (100, 200)
    ]


_GAMES = [f"atari:{game}" for game in ("pong", "breakout", "ms_pacman", "qbert", "seaquest", "enduro", "freeway")]


@pytest.mark.parametrize("key", ["held_out_agreement", "held_out_action_gap"])
@pytest.mark.parametrize("scores", [True, False])
def test_a_distillation_of_several_tasks_has_a_line_of_its_own_for_each(tmp_path, scores, key, monkeypatch) -> None:
    drawn = _drawn_lines(monkeypatch)
    records = _joint_distillation(_GAMES[:3], scores=scores, key=key)
    learning_curve(_write_run(tmp_path / "run", records), tmp_path / "curve.png")
    assert len(drawn) == (3 if scores else 2)
    for axes in drawn:
        assert [line.get_color() for line in axes.get_lines()] == list(TASK_COLOURS[:3])
        assert {text.get_text().rpartition(" ")[0] for text in axes.texts} == {"Pong", "Breakout", "Ms Pacman"}
    np.testing.assert_allclose([line.get_ydata() for line in drawn[1].get_lines()], [[10, 10], [20, 20], [30, 30]])


@pytest.mark.parametrize(
    ("names", "axis", "last"),
    [
        (_GAMES[:2], "0: random play, 1: a human tester", [20.7 / (14.6 + 20.7), (1 - 1.7) / (30.5 - 1.7)]),
        (["module:Own-v0", "atari:pong"], "points of each task", [0.0, 1.0]),
    ],
)
def test_games_share_an_axis_only_between_random_play_and_a_human(tmp_path, names, axis, last, monkeypatch) -> None:
    drawn = _drawn_lines(monkeypatch)
    learning_curve(_write_run(tmp_path / "run", _joint_distillation(names, scores=True)), tmp_path / "curve.png")
    assert drawn[2].get_ylabel() == axis
    np.testing.assert_allclose([line.get_ydata()[-1] for line in drawn[2].get_lines()], last)


def test_a_name_of_a_task_that_would_run_over_the_next_panel_is_shortened(tmp_path: Path, monkeypatch) -> None:
    drawn = _drawn_lines(monkeypatch)
    records = _joint_distillation(["module:MountainCarContinuous-v0", "atari:pong"], scores=False)
    learning_curve(_write_run(tmp_path / "run", records), tmp_path / "curve.png")
    assert {text.get_text().rpartition(" ")[0] for text in drawn[0].texts} == {"Mountain…inuous-v0", "Pong"}


def test_an_evaluation_of_several_tasks_is_not_drawn_into_their_curve(tmp_path: Path) -> None:
    run = _write_run(tmp_path / "run", _joint_distillation(_GAMES[:3], scores=True))
    with pytest.raises(RldistillError) as caught:
        learning_curve(run, tmp_path / "curve.png", evaluation=_evaluation())
    assert str(caught.value) == (
        "No evaluation can be drawn into a curve of 3 tasks, whose scores share no axis. Leave it out."
    )


def _drawn_lines(monkeypatch: pytest.MonkeyPatch) -> list:
    """Return the panels of the next figure that is drawn, from left to right and top to bottom."""
    from matplotlib.figure import Figure

    drawn: list = []
    add_axes = Figure.add_axes
    monkeypatch.setattr(Figure, "add_axes", lambda *arguments: drawn.append(add_axes(*arguments)) or drawn[-1])
    return drawn


def test_a_folder_without_measurements_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    run = _write_run(tmp_path / "run", [])
    with pytest.raises(RldistillError, match=r"holds no record with 'held_out_loss'. Expected the folder of a `rldis"):
        learning_curve(run, tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()


def test_without_matplotlib_the_error_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _write_run(tmp_path / "run", _distillation(scores=False))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        RldistillError, match=r"needs matplotlib.*pip install -c constraints\.txt -e '\.\[report\]' in the checkout"
    ):
        learning_curve(run, tmp_path / "curve.png")


def _drawn_figure(monkeypatch: pytest.MonkeyPatch) -> list:
    """Return a list that receives the next figure that is drawn."""
    from matplotlib.figure import Figure

    drawn: list = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, *arguments, **more: drawn.append(figure) or savefig(figure, *arguments, **more),
    )
    return drawn


def test_the_longest_label_is_not_cut_off_at_the_right_edge(tmp_path, monkeypatch) -> None:
    drawn = _drawn_figure(monkeypatch)
    evaluation = _evaluation()
    for scale in (1.0, 1000.0):
        for policy in evaluation["policies"]:
            policy["mean"] *= scale
            policy["interval"] = [policy["mean"] - 101.5 * scale, policy["mean"] + 101.5 * scale]
        run = _write_run(tmp_path / f"{scale:g}", _distillation(scores=True))
        learning_curve(run, tmp_path / "curve.png", evaluation=evaluation)
    short, long = drawn
    for figure in drawn:
        texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
        assert all(text.get_window_extent().x1 <= figure.bbox.width - 10 for text in texts)
    assert long.bbox.width > short.bbox.width
    for one, other in zip(short.axes, long.axes, strict=True):
        np.testing.assert_allclose(one.bbox.bounds, other.bbox.bounds)


@pytest.mark.parametrize("has_temperature", [True, False])
@pytest.mark.parametrize("several", [True, False])
def test_a_footnote_tells_of_a_temperature_only_where_there_is_one(tmp_path, monkeypatch, several, has_temperature):
    drawn = _drawn_figure(monkeypatch)
    records = _joint_distillation(_GAMES[:2], scores=False) if several else _distillation(scores=False)
    for values in [values for record in records for values in (record["tasks"].values() if several else [record])]:
        values.pop("temperature", None)
        values |= {"temperature": 0.2} if has_temperature else {}
    learning_curve(_write_run(tmp_path / "run", records), tmp_path / "curve.png")
    footnote = drawn[0].texts[-1].get_text()
    assert footnote.startswith("Held-out steps: whole episodes that are never trained on")
    assert footnote.endswith("at the temperature of the moment: they may rise while it falls.") == has_temperature
    assert ("temperature" in footnote) == has_temperature
