"""Curves: what is drawn is a whole PNG of the promised size, and what cannot be drawn is said in one line."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rldistill.errors import RldistillError
from rldistill.reports.canvas import DOTS_PER_INCH
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


def _distillation(*, steepness: float = 1.0) -> list[dict[str, object]]:
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


def test_a_learning_curve_shows_teacher_student_and_random_play_in_three_panels(tmp_path: Path) -> None:
    out = learning_curve(_write_run(tmp_path / "run", _distillation()), tmp_path / "new" / "curve.png", _evaluation())
    pixels = _pixels(out)
    assert pixels.shape[0] == int(4.75 * DOTS_PER_INCH)
    assert all(_has_colour(pixels, colour) for colour in (_TEACHER, _STUDENT, _RANDOM))


def test_a_loss_that_falls_a_thousandfold_can_be_drawn(tmp_path: Path) -> None:
    run = _write_run(tmp_path / "run", _distillation(steepness=5.0))
    assert _has_colour(_pixels(learning_curve(run, tmp_path / "curve.png", _evaluation())), _STUDENT)


def test_dollar_signs_in_names_are_no_formulas(tmp_path: Path) -> None:
    evaluation, name = _evaluation(), "$a_{$ of $\\frac$"
    evaluation["policies"][1]["name"] = name
    run = _write_run(tmp_path / "run", _distillation(), _CONFIG.replace('"net3"', f"'{name}'"))
    assert _has_colour(_pixels(learning_curve(run, tmp_path / "curve.png", evaluation)), _STUDENT)


def test_equal_runs_give_equal_files(tmp_path: Path) -> None:
    run = _write_run(tmp_path / "run", _distillation())
    first, second = (learning_curve(run, tmp_path / name, _evaluation()).read_bytes() for name in ("a.png", "b.png"))
    assert first == second


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    before = "matplotlib.pyplot" in sys.modules
    learning_curve(_write_run(tmp_path / "run", _distillation()), tmp_path / "curve.png", _evaluation())
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_a_folder_without_measurements_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    run = _write_run(tmp_path / "run", [])
    with pytest.raises(RldistillError, match=r"holds no record with 'held_out_loss'. Expected the folder of a `rldis"):
        learning_curve(run, tmp_path / "curve.png", _evaluation())
    assert not (tmp_path / "curve.png").exists()


def test_without_matplotlib_the_error_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _write_run(tmp_path / "run", _distillation())
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        RldistillError, match=r"needs matplotlib.*pip install -c constraints\.txt -e '\.\[report\]' in the checkout"
    ):
        learning_curve(run, tmp_path / "curve.png", _evaluation())


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
        run = _write_run(tmp_path / f"{scale:g}", _distillation())
        learning_curve(run, tmp_path / "curve.png", evaluation)
    short, long = drawn
    for figure in drawn:
        texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
        assert all(text.get_window_extent().x1 <= figure.bbox.width - 10 for text in texts)
    assert long.bbox.width > short.bbox.width
    for one, other in zip(short.axes, long.axes, strict=True):
        np.testing.assert_allclose(one.bbox.bounds, other.bbox.bounds)


@pytest.mark.parametrize(("temperatures", "falls"), [([0.2, 0.1], True), ([0.2], False), ([], False)])
def test_a_footnote_tells_of_a_temperature_only_where_it_falls(tmp_path, monkeypatch, temperatures, falls):
    drawn = _drawn_figure(monkeypatch)
    records = _distillation()
    for number, record in enumerate(records):
        del record["temperature"]
        if temperatures:
            record["temperature"] = temperatures[number % len(temperatures)]
    learning_curve(_write_run(tmp_path / "run", records), tmp_path / "curve.png", _evaluation())
    footnote, evaluation = drawn[0].texts[-1].get_text().splitlines()
    assert footnote.startswith("Held-out steps: whole episodes that are never trained on")
    assert footnote.endswith("at the temperature of the moment: they may rise while it falls.") == falls
    assert ("temperature" in footnote) == falls
    assert evaluation.startswith("Evaluation: 3 episodes each, seed 4, ")


@pytest.mark.parametrize("steepness", [1.5, 3.0, 7.0, 15.0])  # over one decade to a dozen
def test_a_logarithmic_axis_has_several_numbers_on_it(tmp_path, monkeypatch, steepness):
    drawn = _drawn_figure(monkeypatch)
    run = _write_run(tmp_path / "run", _distillation(steepness=steepness))
    learning_curve(run, tmp_path / "curve.png", _evaluation())
    axes = drawn[0].axes[0]
    assert axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    labels = [label.get_text() for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
    if steepness == 1.5:
        assert labels == ["0.1", "0.2", "0.5", "1"]
    assert 2 <= len(labels) <= 9


def test_long_names_of_policies_do_not_run_into_each_other(tmp_path, monkeypatch):
    drawn = _drawn_figure(monkeypatch)
    evaluation = _evaluation()
    for policy in evaluation["policies"]:
        policy["name"] = "a name of more than three lines, with averyveryverylongword in it"
    learning_curve(_write_run(tmp_path / "run", _distillation()), tmp_path / "curve.png", evaluation)
    boxes = [label.get_window_extent() for label in drawn[0].axes[2].get_xticklabels()]
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))
    footnote = drawn[0].texts[-1].get_window_extent()
    assert all(box.y0 > footnote.y1 for box in boxes)
