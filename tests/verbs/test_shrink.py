"""The search for the smallest student that is good enough: sizes, proof, stops, refusals."""

import itertools
import json
import math
import shlex
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

import rldistill as rd
from rldistill.distillation.loop import UpdateDivergedError
from rldistill.errors import MismatchError, OutputExistsError, RldistillError, UsageError
from rldistill.events import MessageEvent, ProgressEvent
from rldistill.options.distill import DistillOptions, Stored
from rldistill.options.shrink import ShrinkOptions
from rldistill.policies import RandomPolicy, load_policy
from rldistill.schedules import as_schedule
from rldistill.session.run_folder import read_config
from rldistill.verbs import shrink_play, shrink_search
from rldistill.verbs.recipes import choose_recipe, fill_in
from rldistill.verbs.shrink import check_shrink
from rldistill.verbs.shrink_play import Episodes
from rldistill.verbs.shrink_proof import proved
from rldistill.verbs.shrink_records import Proof, Trial, verdict
from rldistill.verbs.shrink_tried import Tried
from rldistill.verbs.sizes import next_size
from tests.kit.cart_pole import hand_made_teacher, short_cart_pole
from tests.kit.commands import run
from tests.kit.payout import constant_policy, payout_task
from tests.kit.seen_env import PARTS_TASK, teacher_of_state
from tests.kit.small_policies import box_task, image_task, vector_task
from tests.kit.terrain_env import INFO_TASK, SPANS, TERRAIN_TASK, terrain_teachers

SIZES = {"a": 10, "b": 20, "c": 40, "d": 80, "e": 160}


@pytest.fixture
def quick(monkeypatch):
    """Few updates and few episodes: what is found does not matter, how it is found does."""
    monkeypatch.setattr(shrink_search, "_CHOOSING", 10)
    monkeypatch.setattr(shrink_search, "_GLANCING", 5)
    monkeypatch.setattr(shrink_search, "ladder", lambda _seen, remembers: ("mlp:1", "mlp:4", "mlp:8", "mlp:16"))
    # The hand-made teacher is as small as the smallest of these.
    monkeypatch.setattr(shrink_search, "num_parameters_of", lambda _teacher: None)


def search_order(holds, teacher_size):
    tried, order = {}, []
    while (name := next_size(SIZES, tried, teacher_size)) is not None:
        order.append(name)
        tried[name] = holds(name)
    return order, tried


@pytest.mark.parametrize("smallest", [*SIZES, None])
def test_the_smallest_size_that_holds_and_the_largest_that_does_not_are_always_found(smallest):
    def holds(name):
        return smallest is not None and SIZES[name] >= SIZES[smallest]

    order, tried = search_order(holds, 450)
    assert order[0] == "c", "a tenth of the teacher comes first"
    held = [name for name in SIZES if tried.get(name)]
    assert (held[0] if held else None) == smallest
    if smallest is None:
        assert tried["e"] is False
    elif smallest != "a":
        assert tried[list(SIZES)[list(SIZES).index(smallest) - 1]] is False
    assert len(order) == len(set(order)) <= 4


def test_an_unknown_teacher_begins_in_the_middle():
    assert next_size(SIZES, {}, None) == "c"


@pytest.mark.learning
def test_a_student_of_few_parameters_keeps_the_skill_of_a_hand_made_teacher(tmp_path):
    task = short_cart_pole(200)
    found = rd.shrink(hand_made_teacher(task), task, out=tmp_path / "s", within=120.0, num_envs=8)
    assert found.held
    assert found.proofs[-1].bound >= 0.95
    sizes = {trial.network: trial.num_parameters for trial in found.trials}
    assert sum(parameter.numel() for parameter in found.student.network.parameters()) == min(
        size for name, size in sizes.items() if name in {trial.network for trial in found.trials if trial.holds}
    )
    assert load_policy(tmp_path / "s" / "student.safetensors").hash == found.student.hash


def test_what_was_found_is_written_and_shown(tmp_path, quick):
    task = short_cart_pole(60)
    found = rd.shrink(hand_made_teacher(task), task, out=tmp_path / "s", within=60.0, num_episodes=20, num_envs=4)
    data = json.loads((tmp_path / "s" / "shrink.json").read_text())
    assert data["verdict"] == found.verdict
    assert [trial["network"] for trial in data["trials"]] == [trial.network for trial in found.trials]
    for trial in found.trials:
        assert (tmp_path / "s" / trial.file).is_file()
        assert trial.network in str(found)
    # Each look at fresh episodes pays for itself.
    assert [proof.confidence for proof in found.proofs] == [1 - 0.05 / 2 ** (k + 1) for k in range(len(found.proofs))]


def test_a_stop_keeps_what_was_tried_and_resuming_tries_no_size_twice(tmp_path, quick):
    task, begun = short_cart_pole(60), []

    def stop(event) -> bool:
        if isinstance(event, ProgressEvent) and event.phase.startswith("try "):
            begun.append(event.phase)
        return len(set(begun)) == 2

    settings = {"out": tmp_path / "s", "within": 60.0, "num_episodes": 20, "num_envs": 4}
    with pytest.raises(KeyboardInterrupt):
        rd.shrink(hand_made_teacher(task), task, callbacks=[stop], **settings)
    tried = [trial["network"] for trial in json.loads((tmp_path / "s" / "shrink.json").read_text())["trials"]]
    assert [f"try {name}" for name in tried] == begun[:1]
    with pytest.raises(OutputExistsError):
        rd.shrink(hand_made_teacher(task), task, **settings)
    found = rd.shrink(hand_made_teacher(task), task, resume=True, **settings)
    networks = [trial.network for trial in found.trials]
    assert networks[0] == tried[0]
    assert len(networks) == len(set(networks))


def test_overwriting_begins_anew_and_another_teacher_is_not_gone_on_with(tmp_path, quick):
    task = short_cart_pole(60)
    settings = {"out": tmp_path / "s", "within": 60.0, "num_episodes": 20, "num_envs": 4}
    first = rd.shrink(hand_made_teacher(task), task, **settings)
    again = rd.shrink(hand_made_teacher(task), task, resume=True, **settings)
    assert (again.student.hash, again.held) == (first.student.hash, first.held)
    if first.held:
        assert again.proofs == first.proofs, "a proof stays one"
    with pytest.raises(MismatchError, match="began with another teacher or task"):
        rd.shrink(hand_made_teacher(task, scale=2.0), task, resume=True, **settings)
    rd.shrink(hand_made_teacher(task, scale=2.0), task, overwrite=True, **settings)
    (tmp_path / "s" / "shrink.json").write_text("{}")
    with pytest.raises(RldistillError, match="is damaged"):
        rd.shrink(hand_made_teacher(task, scale=2.0), task, resume=True, **settings)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"within": float("inf")}, "within must be a finite number > 0, got inf"),
        ({"keep": 1.5}, r"keep must lie in \(0, 1\], got 1.5"),
        ({"keep": 0.0}, "keep must be > 0, got 0.0"),
        ({"within": 0.0}, "within must be > 0, got 0.0"),
        ({"num_episodes": 3}, "num_episodes must be 20 or more, got 3"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_played(tmp_path, options, line):
    with pytest.raises(UsageError, match=line):
        rd.shrink("no-file", out=tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_a_teacher_without_skill_is_refused_with_both_scores(tmp_path):
    task = payout_task()
    with pytest.raises(MismatchError, match=r"no better than random play \(teacher 2, random play"):
        rd.shrink(constant_policy(task, 0), task, out=tmp_path / "s", within=5.0)


@pytest.mark.parametrize(("text", "line"), [("soon", "within: got 'soon', expected a time such as 90s, 10m or 2h.")])
def test_a_time_is_written_as_people_do(text, line):
    result = run("shrink", "t", "--within", text)
    assert (result.code, result.line) == (2, f"rldistill shrink: {line}")


def test_what_a_distillation_leaves_open_the_recipe_says_and_the_configuration_keeps(tmp_path):
    task, told = short_cart_pole(40), []
    rd.distill(
        rd.Live(hand_made_teacher(task, kind="logits"), task, collect_steps=100),
        student="mlp:2",
        num_updates=4,
        out=tmp_path / "r",
        callbacks=[told.append],
    )
    written = read_config(tmp_path / "r" / "config.toml")
    recipe = choose_recipe("logits", task.task)
    assert (written["batch_size"], written["collect_period"]) == (recipe.batch_size, recipe.collect_period)
    assert as_schedule(written["teacher_fraction"], "") == as_schedule(recipe.teacher_fraction, "")
    assert (written["num_updates"], written["collect_steps"]) == (4, 100), "what is said counts"
    (note,) = [event.text for event in told if isinstance(event, MessageEvent) and event.text.startswith("recipe: ")]
    assert "batch_size 256" in note
    assert "num_updates" not in note
    assert recipe.why in note


@pytest.mark.parametrize(("loss", "temperature"), [(None, "linear:0.2->0.01@0.5"), ("sharpened_kl", None)])
def test_a_loss_that_is_named_keeps_its_own_temperature(loss, temperature):
    options = DistillOptions("data", loss=loss, out="r")
    filled, _, note = fill_in(options, [Stored("data")], [("q_values", image_task())])
    assert filled.temperature == temperature
    assert note is not None


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({}, ({"box": "mean_mse", "atari:pong": "sharpened_kl"}, {"atari:pong": "linear:0.2->0.01@0.5"})),
        # A task that is not named keeps its recipe's; `pong` names `atari:pong`.
        ({"loss": {"pong": "nll"}}, ({"pong": "nll", "box": "mean_mse"}, None)),
        (
            {"loss": {"choice": "nll"}},
            (
                {"choice": "nll", "box": "mean_mse", "atari:pong": "sharpened_kl"},
                {"atari:pong": "linear:0.2->0.01@0.5"},
            ),
        ),
        (
            {"temperature": {"choice": 2.0}},
            (
                {"box": "mean_mse", "atari:pong": "sharpened_kl"},
                {"choice": 2.0, "atari:pong": "linear:0.2->0.01@0.5"},
            ),
        ),
        ({"loss": "nll"}, ("nll", None)),
        ({"std": "parameter"}, ({"atari:pong": "sharpened_kl"}, {"atari:pong": "linear:0.2->0.01@0.5"})),
    ],
)
def test_each_task_keeps_its_recipe_beside_those_that_are_named(named, expected):
    taught = [
        ("logits", vector_task(name="choice")),
        ("gaussian", box_task(name="box")),
        ("q_values", image_task()),
    ]
    sources = [Stored(task.name) for _, task in taught]
    filled, _, note = fill_in(DistillOptions(sources, out="r", **named), sources, taught)
    assert (filled.loss, filled.temperature) == expected
    assert note is not None
    assert "nll" not in note, "it tells what was filled in"


def test_recipes_follow_from_what_the_teacher_gives():
    task = short_cart_pole()
    assert choose_recipe("logits", task.task).loss is None
    assert np.isclose(float(choose_recipe("logits", task.task).collect_steps), 2_000)


def test_a_size_learns_from_what_earlier_sizes_met(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(shrink_search, "ladder", lambda _seen, remembers: ("mlp:1", "mlp:4"))
    task = short_cart_pole(60)
    found = rd.shrink(
        hand_made_teacher(task, scale=1e-3), task, out=tmp_path / "s", keep=1.0, within=60.0, num_episodes=20
    )
    assert len(found.trials) == 2
    first, second = (rd.load_policy(tmp_path / "s" / trial.file).spec.provenance for trial in found.trials)
    assert first["num_steps"] >= 2_000
    assert second["num_steps"] > first["num_steps"], "both were learned from"


def test_where_time_is_short_the_schedules_end_with_it(tmp_path, quick, monkeypatch):
    calls, rates, distil = itertools.count(), [], shrink_search.distil

    def watched(*arguments):
        for record in distil(*arguments):
            rates.append(record.learning_rate)
            yield record

    monkeypatch.setattr(shrink_search, "ladder", lambda _seen, remembers: ("mlp:4",))
    monkeypatch.setattr(shrink_search, "distil", watched)
    # A clock on which every look at it takes a tenth of a second.
    monkeypatch.setattr(shrink_search, "time", SimpleNamespace(monotonic=lambda: next(calls) / 10))
    monkeypatch.setattr(shrink_play, "time", SimpleNamespace(monotonic=lambda: 0.0))
    task = short_cart_pole(60)
    teacher = hand_made_teacher(task, scale=1e-3)
    (trial,) = rd.shrink(teacher, task, out=tmp_path / "s", keep=1.0, within=80.0, num_episodes=20).trials
    recipe = choose_recipe("q_values", task.task)
    assert trial.is_cut
    assert trial.num_updates < recipe.num_updates / 4
    rate = as_schedule(recipe.learning_rate, "")
    assert rates[0] == rate(0.0)
    assert rates[-1] < 1.5 * rate(1.0)


def test_while_no_size_holds_one_has_time_to_learn_even_if_the_proof_is_then_late(tmp_path, quick, monkeypatch):
    task, told = short_cart_pole(60), []
    # Episodes so slow that the proof alone would take all of the time.
    monkeypatch.setattr(shrink_search.Search, "_proof_seconds", 1000.0)
    monkeypatch.setattr(shrink_search, "ladder", lambda _seen, remembers: ("mlp:4", "mlp:16"))
    few = {"num_updates": 60, "check_period": 30}
    monkeypatch.setattr(shrink_search, "choose_recipe", lambda *of, **how: replace(choose_recipe(*of, **how), **few))
    monkeypatch.setattr(shrink_search.Search, "_look", lambda _self, _student, _name: (1.0, 1.0))
    found = rd.shrink(
        hand_made_teacher(task), task, out=tmp_path / "s", within=60.0, num_episodes=20, callbacks=[told.append]
    )
    (trial,) = found.trials
    assert trial.num_updates == 30, "learned until it held"
    assert found.proofs
    said = [event.text for event in told if isinstance(event, MessageEvent)]
    assert "time is up: 1 of 2 sizes were not tried to the end" in said


def search_whose_proofs_fail(monkeypatch, tmp_path, *, num_failures, held_at_the_end=True):
    """Return what is found where the first proofs fail, and what was said.

    Sizes hold at their first look, after 30 of 60 updates, as little as that says.
    """
    told, few = [], {"num_updates": 60, "check_period": 30}
    monkeypatch.setattr(shrink_search, "ladder", lambda _seen, remembers: ("mlp:2", "mlp:4"))
    monkeypatch.setattr(shrink_search, "choose_recipe", lambda *of, **how: replace(choose_recipe(*of, **how), **few))
    proofs = itertools.count()

    def look(_self, _student, name):
        again = any("fresh" in event.text and name in event.text for event in told if isinstance(event, MessageEvent))
        return (1.0, 1.0) if held_at_the_end or not again else (0.5, 0.5)

    def kept(_self, _scores, purpose, _confidence, _stream, **_):
        return (1.0, 1.0) if next(proofs) >= num_failures else (0.9, 0.8)

    monkeypatch.setattr(shrink_search.Search, "_look", look)
    monkeypatch.setattr(shrink_play.Episodes, "kept", kept)
    task = short_cart_pole(60)
    found = rd.shrink(
        hand_made_teacher(task), task, out=tmp_path / "s", within=9e3, num_episodes=100, callbacks=[told.append]
    )
    return found, [event.text for event in told if isinstance(event, MessageEvent)]


def test_a_size_that_fails_its_proof_learns_until_its_schedule_ends(tmp_path, quick, monkeypatch):
    found, said = search_whose_proofs_fail(monkeypatch, tmp_path, num_failures=2)
    assert found.held
    assert [proof.network for proof in found.proofs] == ["mlp:2", "mlp:4", "mlp:4"]
    trial = next(trial for trial in found.trials if trial.network == "mlp:4")
    assert trial.num_updates == 60
    assert len({trial.network for trial in found.trials}) == len(found.trials)
    assert "mlp:4 begins from the weights of mlp:4" in said
    student = load_policy(tmp_path / "s" / "student.safetensors")
    assert trial.policy_hash == load_policy(tmp_path / "s" / trial.file).hash == found.proofs[-1].policy_hash
    assert student.hash == found.student.hash
    assert [line.split()[-1] for line in str(found).splitlines()[1:3]] == ["proved", "proved"]


def test_a_size_that_no_longer_holds_when_it_learned_on_stays_what_it_was(tmp_path, quick, monkeypatch):
    found, _ = search_whose_proofs_fail(monkeypatch, tmp_path, num_failures=9, held_at_the_end=False)
    assert not found.held
    assert [proof.network for proof in found.proofs] == ["mlp:2", "mlp:4"]
    assert [trial.num_updates for trial in found.trials] == [30, 30]
    assert str(found).count("not proved") == 2
    assert "keeps 90.0 % in 100 fresh episodes" in found.verdict
    task, settings = short_cart_pole(60), {"within": 9e3, "resume": True, "num_episodes": 100}
    again = rd.shrink(hand_made_teacher(task), task, out=tmp_path / "s", **settings)
    assert again.proofs == found.proofs, "what kept too little is not looked at again"
    records = tmp_path / "s" / "shrink.json"
    data = json.loads(records.read_text())
    data["proofs"][-1]["retention"] = 0.96
    records.write_text(json.dumps(data))
    more = rd.shrink(hand_made_teacher(task), task, out=tmp_path / "s", **settings)
    assert len(more.proofs) > 2, "what kept enough may need more episodes"
    data["proofs"] *= 4
    records.write_text(json.dumps(data))
    last = rd.shrink(hand_made_teacher(task), task, out=tmp_path / "s", **settings)
    assert len(last.proofs) == 8
    assert "All looks at fresh episodes are taken: --resume with a lower --keep, or --overwrite" in last.verdict


def test_proofs_that_are_there_are_judged_anew_by_a_lower_share_to_be_kept(tmp_path, quick, monkeypatch):
    found, _ = search_whose_proofs_fail(monkeypatch, tmp_path, num_failures=9, held_at_the_end=False)
    assert "No size is left to try: a lower --keep may help with --resume; begun anew" in found.verdict
    task = short_cart_pole(60)
    again = rd.shrink(
        hand_made_teacher(task), task, out=tmp_path / "s", within=9e3, keep=0.75, num_episodes=100, resume=True
    )
    assert (again.held, again.keep) == (True, 0.75)
    assert again.proofs == tuple(replace(proof, holds=True) for proof in found.proofs), "no look more"
    assert again.verdict.startswith("mlp:2, ") and "at least 80.0 % with 95 % confidence" in again.verdict
    assert str(again).count(" proved") == 2


def test_of_several_looks_at_a_student_the_last_is_told_not_the_luckiest(tmp_path):
    tried = Tried(tmp_path, {})
    tried.trials = [Trial("mlp:4", 30, 0.9, 0.85, True, 600, 100, 1.0, False, "a")]
    looks = [
        Proof("mlp:4", "a", retention, bound, 0.95, episodes, (0.0, 1.0, 2.0), False)
        for retention, bound, episodes in ((0.99, 0.91, 100), (0.92, 0.87, 200))
    ]
    tried.proofs = looks
    assert tried.closest(None) == (tried.trials[0], looks[1])


def saved_trial(folder, *, name="mlp:2", size=30, retention=0.9, bound=0.85, scale=1.0):
    """Return the trial of a student that lies in the folder."""
    student = hand_made_teacher(short_cart_pole(60), scale=scale)
    trial = Trial(name, size, retention, bound, True, 600, 100, 1.0, False, student.hash)
    (folder / trial.file).parent.mkdir(parents=True, exist_ok=True)
    student.save(folder / trial.file)
    return trial


def proof_of(trial, retention, bound, *, keep=0.95):
    return Proof(trial.network, trial.policy_hash, retention, bound, 0.975, 100, (0.0, 1.0, 2.0), bound >= keep)


def test_a_size_that_ended_when_it_held_is_tried_again_where_more_is_to_be_kept(tmp_path):
    Tried(tmp_path, {}).write({"trials": [asdict(saved_trial(tmp_path))], "proofs": []})
    for keep, outcomes in ((0.8, {"mlp:2": True}), (0.95, {})):
        tried = Tried(tmp_path, {})
        assert tried.take_up(keep) == []
        assert (tried.has_held, tried.outcomes) == (keep == 0.8, outcomes)


def test_a_size_whose_proof_shows_more_than_the_choosing_episodes_holds_what_the_proof_shows(tmp_path):
    trial = saved_trial(tmp_path)
    proofs = [asdict(proof_of(trial, 0.98, 0.96))]
    Tried(tmp_path, {}).write({"trials": [asdict(trial)], "proofs": proofs})
    for keep in (0.95, 0.97):
        tried = Tried(tmp_path, {})
        tried.take_up(keep)
        assert tried.has_held == tried.proofs[0].holds == (keep == 0.95)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_of_another_student_than_the_proved_one_is_not_taken_for_it(tmp_path, is_there):
    trial = saved_trial(tmp_path)
    Tried(tmp_path, {}).write({"trials": [asdict(trial)], "proofs": [asdict(proof_of(trial, 1.0, 0.97))]})
    if is_there:
        saved_trial(tmp_path, scale=-1.0)
    else:
        (tmp_path / trial.file).unlink()
    tried = Tried(tmp_path, {})
    assert tried.take_up(0.95) == ["mlp:2"]
    assert (tried.trials, tried.outcomes, len(tried.proofs)) == ([], {}, 1)


def test_what_an_earlier_call_proved_stays_proved_where_no_time_is_left_to_prove_a_smaller_one(tmp_path):
    small = saved_trial(tmp_path, name="mlp:1", size=20, scale=2.0)
    large = saved_trial(tmp_path)
    options = ShrinkOptions(hand_made_teacher(), short_cart_pole(60), out=tmp_path, keep=0.8, within=9.0)
    search = shrink_search.Search(options, options.teacher, tmp_path, ())
    search._tried.trials, search._tried.proofs = [small, large], [proof_of(large, 0.9, 0.85, keep=0.8)]
    search._deadline = 0.0
    assert search._prove() == search._tried.proofs[0]


@pytest.mark.parametrize(("shown", "best"), [(0.7, "mlp:3"), (0.9, "mlp:2")])
def test_a_size_that_held_and_was_not_looked_at_is_better_than_one_that_showed_less(tmp_path, shown, best):
    failed, held, larger = (
        Trial(f"mlp:{size}", size, 0.95, 0.85, True, 600, 100, 1.0, False, f"hash {size}") for size in (2, 3, 4)
    )
    tried = Tried(tmp_path, {})
    tried.trials, tried.proofs = [failed, larger, held], [proof_of(failed, shown, 0.6)]
    chosen, look = tried.closest(None)
    assert (chosen.network, look) == (best, tried.proofs[0] if best == "mlp:2" else None)


def test_a_size_that_time_cut_is_tried_again_and_replaced_only_by_a_better_student(tmp_path, quick, monkeypatch):
    few = {"num_updates": 60, "check_period": 30}
    monkeypatch.setattr(shrink_search, "ladder", lambda _seen, remembers: ("mlp:4",))
    monkeypatch.setattr(shrink_search, "choose_recipe", lambda *of, **how: replace(choose_recipe(*of, **how), **few))
    task, records = short_cart_pole(60), tmp_path / "s" / "shrink.json"
    results = []
    for retention, is_cut in ((0.8, True), (0.3, True), (0.9, False)):
        monkeypatch.setattr(shrink_search.Search, "_look", lambda *_, shown=retention: (shown, shown - 0.1))
        settings = {"out": tmp_path / "s", "within": 60.0, "num_episodes": 20, "resume": bool(results)}
        results.append(rd.shrink(hand_made_teacher(task), task, **settings))
        data = json.loads(records.read_text())
        data["trials"][0]["is_cut"] = is_cut
        records.write_text(json.dumps(data))
    first, worse, better = results
    assert worse.student.hash == first.student.hash == worse.trials[0].policy_hash
    assert worse.trials[0].retention == 0.8
    assert worse.trials[0].num_steps > first.trials[0].num_steps, "it was tried again"
    assert better.trials[0].retention == 0.9
    assert load_policy(tmp_path / "s" / better.trials[0].file).hash == better.student.hash != first.student.hash


def test_a_size_begins_from_the_weights_of_a_smaller_one_that_failed(tmp_path, quick, monkeypatch):
    told = []
    monkeypatch.setattr(shrink_search, "ladder", lambda _seen, remembers: ("mlp:1", "mlp:2", "mlp:4"))
    monkeypatch.setattr(shrink_search.Search, "_look", lambda _self, _student, _name: (0.5, 0.5))
    few = {"num_updates": 60, "check_period": 30}
    monkeypatch.setattr(shrink_search, "choose_recipe", lambda *of, **how: replace(choose_recipe(*of, **how), **few))
    task = short_cart_pole(60)
    found = rd.shrink(hand_made_teacher(task), task, out=tmp_path / "s", within=60.0, callbacks=[told.append])
    assert [trial.network for trial in found.trials] == ["mlp:2", "mlp:4"]
    said = [event.text for event in told if isinstance(event, MessageEvent)]
    assert "mlp:4 begins from the weights of mlp:2" in said


def test_more_time_is_advised_where_sizes_were_left_untried(tmp_path, quick, monkeypatch):
    times, few = iter([(60.0, 60.0), (1.0, -1.0)]), {"num_updates": 60, "check_period": 30}
    monkeypatch.setattr(shrink_search.Search, "_time_for_a_size", lambda _self: next(times))
    monkeypatch.setattr(shrink_search.Search, "_look", lambda *_: (0.5, 0.5))
    monkeypatch.setattr(shrink_search, "choose_recipe", lambda *of, **how: replace(choose_recipe(*of, **how), **few))
    found = rd.shrink(hand_made_teacher(), short_cart_pole(60), out=tmp_path / "s", within=60.0, num_envs=4)
    assert len(found.trials) == 1 and not found.trials[0].is_cut
    assert "More time (--within) or a lower --keep may help with --resume; begun anew" in found.verdict


def test_a_dry_run_of_a_search_that_goes_on_refuses_what_the_run_refuses(tmp_path, quick):
    task = short_cart_pole(60)
    hand_made_teacher(task).save(tmp_path / "t.safetensors")
    settings = {"out": tmp_path / "s", "within": 60.0, "num_episodes": 20, "num_envs": 4}
    rd.shrink(tmp_path / "t.safetensors", task, **settings)
    options = ShrinkOptions(tmp_path / "t.safetensors", task, resume=True, seed=1, **settings)
    for call in (check_shrink, rd.shrink.of):
        with pytest.raises(RldistillError, match=r"seed was 0, is 1"):
            call(options)


def test_a_task_whose_episodes_do_not_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shrink_play, "_LONGEST_EPISODE", 20)
    task = short_cart_pole(60)
    with pytest.raises(MismatchError, match=r"no episode ended within 20 decisions.*max_episode_steps"):
        rd.shrink(hand_made_teacher(task), task, out=tmp_path / "s", within=5.0)
    assert not (tmp_path / "s").exists()


def test_a_task_whose_episodes_do_not_end_in_the_time_is_refused(tmp_path):
    task = short_cart_pole(60)

    def wait(event):
        if isinstance(event, ProgressEvent) and not event.done:
            time.sleep(1.5)

    with pytest.raises(UsageError, match=r"^within: got 1 s, in which 0 of 40 episodes ended .* the episodes a limit"):
        rd.shrink(hand_made_teacher(task), task, out=tmp_path / "s", within=1.0, callbacks=[wait])


def test_a_proof_may_end_after_the_time(tmp_path, quick, monkeypatch):
    task, waited, calls = short_cart_pole(60), [], itertools.count()

    def wait(event):
        if isinstance(event, ProgressEvent) and event.phase.startswith("proof"):
            waited.append(event)

    # A clock that hardly moves until the proof begins, and then shows a time after the end.
    clock = SimpleNamespace(monotonic=lambda: 60.0 * bool(waited) + next(calls) / 1e4)
    monkeypatch.setattr(shrink_search, "time", clock)
    monkeypatch.setattr(shrink_play, "time", clock)
    settings = {"within": 50.0, "num_episodes": 20, "num_envs": 4, "callbacks": [wait]}
    found = rd.shrink(hand_made_teacher(task), task, out=tmp_path / "s", **settings)
    assert waited and found.proofs


def test_a_time_that_ends_before_the_first_look_is_refused_and_leaves_no_folder(tmp_path):
    task, began = short_cart_pole(60), []

    def wait(event):
        if isinstance(event, ProgressEvent) and event.done and not began:
            began.append(event)
            time.sleep(2)

    with pytest.raises(UsageError, match=r"^within: got 1 s, in which \d+ of 40 episodes ended \(choosing "):
        rd.shrink(hand_made_teacher(task), task, out=tmp_path / "s", within=1.0, callbacks=[wait])
    assert not (tmp_path / "s").exists()


def test_a_student_that_never_fails_is_proved_to_keep_what_the_rule_of_three_allows(tmp_path, quick):
    task = short_cart_pole(200)
    teacher = hand_made_teacher(task)
    found = rd.shrink(teacher, task, out=tmp_path / "s", within=60.0, num_episodes=100, num_envs=8)
    perfect = [proof for proof in found.proofs if proof.retention == 1]
    assert all(0.96 < proof.bound <= 0.97 for proof in perfect if proof.num_episodes == 100)
    assert perfect, "CartPole is kept whole"


def test_where_the_teacher_fails_in_half_of_its_episodes_it_takes_twice_as_many_to_prove_as_much(tmp_path, monkeypatch):
    def scores(_self, policy, _purpose, num_episodes, **_):
        return np.zeros(num_episodes) if isinstance(policy, RandomPolicy) else np.arange(num_episodes) % 2.0

    monkeypatch.setattr(Episodes, "scores", scores)
    task = short_cart_pole(60)
    options = ShrinkOptions(hand_made_teacher(task), task, out=tmp_path / "s", within=9.0)
    episodes = Episodes(options, options.teacher, task, (), deadline=math.inf)
    for num_asked, num_episodes in ((100, 148), (200, 200)):
        proof = proved(episodes, options.teacher, "mlp:2", num_asked, 0.95, 0)
        # Of the rule of three: only the teacher's successes show that the student does not fail.
        bound = 1 - math.log(1 / 0.025) / (num_episodes / 2)
        assert (proof.num_episodes, proof.retention, proof.bound) == (num_episodes, 1.0, pytest.approx(bound))
        assert proof.holds
    search = shrink_search.Search(options, options.teacher, tmp_path / "s", ())
    assert search._num_proof_episodes(None) == math.ceil(2 * math.log(1 / 0.025) / 0.05)


def test_a_look_takes_more_episodes_where_its_teacher_fails_more_often_than_in_those_that_chose_their_number(
    tmp_path, monkeypatch
):
    def scores(_self, policy, _purpose, num_episodes, **_):  # the teacher succeeds in every third episode
        return np.zeros(num_episodes) if isinstance(policy, RandomPolicy) else np.arange(num_episodes) % 3 // 2.0

    monkeypatch.setattr(Episodes, "scores", scores)
    task = short_cart_pole(60)
    options = ShrinkOptions(hand_made_teacher(task), task, out=tmp_path / "s", within=9.0)
    episodes = Episodes(options, options.teacher, task, (), deadline=math.inf)
    proof = proved(episodes, options.teacher, "mlp:2", 100, 0.95, 0)
    assert proof.holds, "that never fails"
    assert proof.num_episodes == pytest.approx(3 * math.log(1 / 0.025) / 0.05, abs=3)


@pytest.mark.parametrize(
    ("retention", "bound", "keep", "expected"),
    [
        (1.0, 1.0, 0.95, 100),
        (0.985, 0.97, 0.95, 132),
        (0.98, 0.98, 0.95, 121),  # 100 without a failure prove 0.944 at most
        (0.955, 0.951, 0.95, 100),  # not even 400 are likely to prove it
        (1.0, 1.0, 1.0, 100),
    ],
)
def test_a_proof_that_is_likely_to_fail_is_a_longer_one_at_once(tmp_path, retention, bound, keep, expected):
    trial = Trial("mlp:2", 30, retention, bound, True, 100, 1_000, 1.0, False, "")
    task = short_cart_pole(60)
    options = ShrinkOptions(hand_made_teacher(task), task, out=tmp_path / "s", keep=keep, within=1e6)
    search = shrink_search.Search(options, options.teacher, tmp_path / "s", ())
    search.check_teacher()
    search._episodes.teacher_seconds = search._episodes.random_seconds = 1.0
    assert search._num_proof_episodes(trial) == expected
    search._deadline = time.monotonic() + 331.0  # enough for 110 of three policies
    assert search._num_proof_episodes(trial) == min(expected, 110)


def test_a_size_that_diverges_is_one_that_does_not_hold(tmp_path, quick, monkeypatch):
    def diverged(*_):
        raise UpdateDivergedError("the loss is nan")

    monkeypatch.setattr(shrink_search.Search, "_updates", diverged)
    task, told = short_cart_pole(60), []
    found = rd.shrink(
        hand_made_teacher(task), task, out=tmp_path / "s", within=60.0, num_episodes=20, callbacks=[told.append]
    )
    assert not found.held and not any(trial.holds for trial in found.trials)
    texts = [event.text for event in told if isinstance(event, MessageEvent)]
    assert "mlp:16 is given up: its training diverged" in texts
    assert "mlp:16, 114 parameters: keeps nothing (bound nothing), does not hold; 0 steps, 0 s" in texts


def test_no_student_is_as_large_as_its_teacher(tmp_path, monkeypatch):
    monkeypatch.setattr(shrink_search, "_CHOOSING", 15)
    task = short_cart_pole(60)
    found = rd.shrink(hand_made_teacher(task), task, out=tmp_path / "s", within=60.0, num_envs=8)
    assert [trial.network for trial in found.trials] == ["mlp:1"], "mlp:2 has as many parameters as the teacher"


@pytest.mark.parametrize(
    ("teacher_size", "shown"),
    [
        (60, "mlp:1, 6 parameters, 10 times fewer than its teacher, keeps 99.0 % of"),
        (4, "mlp:1, 6 parameters (its teacher has 4: no size that is tried is smaller), keeps 99.0 % of"),
        (None, "mlp:1, 6 parameters, keeps 99.0 % of"),
    ],
)
def test_a_student_is_called_smaller_than_its_teacher_only_where_it_is(teacher_size, shown):
    trial = Trial("mlp:1", 6, 0.99, 0.97, True, 600, 100, 1.0, False, "a")
    proof = Proof("mlp:1", "a", 0.99, 0.96, 0.975, 100, (9.9, 10.0, 0.0), True)
    assert verdict(trial, proof, "Mine-v0", keep=0.95, teacher_size=teacher_size).startswith(shown)


def test_a_search_that_is_refused_leaves_no_folder(tmp_path):
    task = short_cart_pole(60)
    with pytest.raises(MismatchError):
        rd.shrink(hand_made_teacher(task), "Acrobot-v1", out=tmp_path / "s", within=5.0)
    assert not (tmp_path / "s").exists()


def test_a_vector_environment_is_refused_since_students_would_be_judged_in_what_is_learned_from(tmp_path):
    envs = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync", max_episode_steps=40)
    with pytest.raises(UsageError) as caught:
        rd.shrink(hand_made_teacher(), envs, out=tmp_path / "s", within=5.0)
    assert str(caught.value) == (
        "task: got a VectorEnv, expected an id or a callable that makes one environment: `shrink` judges students in "
        "the midst of the play that they learn from, and cannot do both in the same environments. Pass a callable: "
        "lambda: gymnasium.make(…)."
    )
    assert not (tmp_path / "s").exists()


def test_the_smallest_student_of_some_parts_is_found_and_finds_its_teacher_again(quick, tmp_path):
    teacher = tmp_path / "teacher.safetensors"
    teacher_of_state().save(teacher)
    found = rd.shrink(teacher, PARTS_TASK, teacher_sees="state", student_sees="hint", within=60, num_episodes=20,
                      out=tmp_path / "s")  # fmt: skip
    assert found.student.spec.sight is not None and found.student.spec.sight.parts == ("hint",)
    assert found.student.spec.provenance["teacher"]["reading"]["sight"] == {"parts": ["state"]}
    with pytest.raises(UsageError, match="names belong with student_sees, teacher_sees or choose"):
        rd.shrink(teacher, PARTS_TASK, names={"a": [0, 1]}, out=tmp_path / "t")


def test_the_smallest_student_of_several_teachers_is_found(quick, tmp_path):
    small = {"within": 10, "num_episodes": 20, "num_envs": 4}
    found = rd.shrink(terrain_teachers(), TERRAIN_TASK, choose="terrain", names=SPANS, out=tmp_path / "s", **small)
    several = found.student.spec.provenance["teacher"]["several"]
    assert [own["name"] for own in several["teachers"]] == ["walk", "climb"]
    with pytest.raises(UsageError, match="out: expected a folder: only the file of a single teacher has a name"):
        rd.shrink(terrain_teachers(), TERRAIN_TASK, choose="terrain", names=SPANS, **small)


def test_a_command_line_names_several_teachers(quick, tmp_path):
    words = []
    for name, policy in terrain_teachers(INFO_TASK).items():
        policy.save(tmp_path / f"{name}.safetensors")
        words.append(f"{name}={tmp_path / name}.safetensors")
    out = tmp_path / "s"
    options = ("--task", INFO_TASK, "--choose", "terrain", "--within", "10s", "--num-episodes", 20, "--num-envs", 4)
    result = run("shrink", *words, *options, "--out", out)
    teachers = " ".join(f"--teacher {word}" for word in words)
    student = f"{out}/student.safetensors --task {INFO_TASK}"
    assert f"next: rldistill evaluate {student} {teachers} --choose terrain --num-" in result.stderr
    assert read_config(out / "config.toml")["choose"] == "terrain"


def test_what_is_next_names_the_task_where_its_settings_are_named(quick, tmp_path):
    task = short_cart_pole(60)
    hand_made_teacher(task).save(tmp_path / "t.safetensors")
    settings = ("--task", "CartPole-v1", "--env-kwargs", '{"max_episode_steps": 60}')
    few = ("--within", "10s", "--num-episodes", 20, "--num-envs", 4)
    result = run("shrink", tmp_path / "t.safetensors", *settings, *few, "--out", tmp_path / "s")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("next: ")]
    words = shlex.split(line.removeprefix("next: rldistill "))
    assert tuple(words[2:6]) == settings
    assert run(*words, "--dry-run").code == 0


def test_the_default_folder_is_not_the_teachers_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "t").mkdir(parents=True)
    hand_made_teacher(short_cart_pole(60)).save(tmp_path / "runs" / "t" / "last_policy.safetensors")
    with pytest.raises(UsageError, match=r"^--out is missing: runs/t, the default, is the teacher's own folder\. Name"):
        rd.shrink("runs/t")


def test_a_search_that_was_stopped_before_it_tried_anything_keeps_nothing_and_says_so(tmp_path):
    task = short_cart_pole(60)
    with pytest.raises(KeyboardInterrupt, match=r"^stopped; nothing is kept\.$"):
        rd.shrink(hand_made_teacher(task), task, out=tmp_path / "s", within=60.0, callbacks=[lambda _: True])
    assert not (tmp_path / "s").exists()


def test_a_search_that_goes_on_shows_what_it_has_whatever_the_time(tmp_path, quick):
    task, settings = short_cart_pole(60), {"num_episodes": 20, "num_envs": 4, "out": tmp_path / "s"}
    first = rd.shrink(hand_made_teacher(task), task, within=60.0, **settings)
    again = rd.shrink(hand_made_teacher(task), task, within=0.01, resume=True, **settings)
    assert again.verdict == first.verdict
    with pytest.raises(RldistillError, match="seed was"):
        rd.shrink(hand_made_teacher(task), task, within=60.0, seed=1, resume=True, **settings)


def test_every_purpose_has_episodes_of_its_own(tmp_path):
    task = short_cart_pole(60)
    options = ShrinkOptions(hand_made_teacher(task), task, out=tmp_path / "s", within=9.0, num_envs=4)
    episodes = Episodes(options, options.teacher, task, (), deadline=math.inf)
    found = [tuple(episodes.scores(RandomPolicy(task.task), each, 20)) for each in ("choosing", "proof 1", "proof 2")]
    assert len(set(found)) == 3
