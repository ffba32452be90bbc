"""Every experiment of the paper from its command to its table and plot, on the smoke budget; and how one goes on."""

import json
import shutil
from functools import partial

import pytest

from rldistill.events import MessageEvent
from rldistill.loading.bundled import bundled_experiments, bundled_teacher
from rldistill.paper.reproduce import reproduce
from rldistill.policies import load_policy
from tests.kit.commands import options, run, run_well
from tests.kit.interruptions import StopAfter
from tests.paper.small_experiment import write_experiment

pytest.importorskip("matplotlib")


def contents(folder) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# Those of one kind do the same work: one of each kind is enough for every day.
EVERY_DAY = {"losses", "multitask3", "online"}


@pytest.mark.parametrize(
    "name",
    [
        name if name in EVERY_DAY else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(bundled_experiments())
    ],
)
def test_smoke(name, tmp_path):
    out = tmp_path / "out"
    # One of them in other processes; the others here, where errors have a trace.
    workers = 2 if name == "losses" else 1
    shared = options(budget="smoke", out=out, num_workers=workers, num_envs=5, num_threads=1)
    command = ["reproduce", name, *shared, "--quiet"]
    results = run_well(*command, "--json").json
    assert results == json.loads((out / "results.json").read_text())
    assert (results["experiment"], results["budget"]) == (name, "smoke")
    assert results["provenance"]["command"].startswith(f"rldistill reproduce {name} --budget smoke")
    assert str(tmp_path) not in (out / "results.json").read_text() + (out / "results.md").read_text()
    for arm in results["arms"]:
        assert set(arm["games"]) == set(results["games"])
        assert all(found["num_episodes"] == results["num_episodes"] for found in arm["games"].values())
    assert f"# {results['title']}" in (out / "results.md").read_text()
    assert (out / "results.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(out.glob("students/*/curves.png"))) == (2 if name == "online" else 0)

    before = contents(out)
    listed = run_well(*command, "--dry-run", "--json").json["jobs"]
    assert listed
    assert all(job["done"] for job in listed)
    again = run_well(*command, "--json").json
    after = contents(out)
    # Whatever finished is not done again: only the configuration and the results are written anew.
    assert {path for path in after if after[path] != before.get(path)} <= {
        "config.toml", "results.json", "results.md", "results.png", ".lock",
    }  # fmt: skip
    assert again["arms"] == results["arms"]


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = [('games = ["pong", "breakout"]', 'games = ["pong"]'), ("num_seeds = 2", "num_seeds = 1")]
    return write_experiment(tmp_path, *changes)


SHARED = options(budget="tiny", out="out", num_workers=1, num_envs=5, num_threads=1)
SMALL = ["reproduce", "small.toml", *SHARED, "--quiet"]


def test_a_stopped_experiment_goes_on_and_more_seeds_add_to_it(small, tmp_path):
    teacher = str(bundled_teacher("pong"))
    small_again = partial(reproduce, "small.toml", budget="tiny", teacher=teacher, out="out", num_envs=5, num_threads=1)
    with pytest.raises(KeyboardInterrupt):
        small_again(callbacks=[StopAfter(8)])
    assert not (tmp_path / "out/results.json").exists()
    one = small_again().results
    # What is published names files without their folders.
    assert "--teacher pong.safetensors" in one["provenance"]["command"]
    made = {
        arm: load_policy(tmp_path / f"out/students/{arm}-pong-seed0/student.safetensors").spec.provenance
        for arm in ("kl", "nll")
    }
    trivial = [arm for arm, said in made.items() if said["held_out_agreement"] <= said["majority_share"]]
    assert one["learned_nothing"] == [{"arm": arm, "game": "pong", "seed": 0} for arm in trivial]
    before = contents(tmp_path / "out/students")
    two = small_again(seeds=2).results
    assert before.items() <= contents(tmp_path / "out/students").items()
    assert [point["seed"] for point in two["arms"][0]["mean_retention"]["by_seed"]] == [0, 1]
    first, both = (results["arms"][0]["games"]["pong"]["by_seed"] for results in (one, two))
    assert first == both[:1]
    told = []
    small_again(callbacks=[told.append])
    warnings = [event.text for event in told if isinstance(event, MessageEvent) and event.level == "warning"]
    assert [text for text in warnings if "also had seed 1: it is replaced by these games and seeds alone" in text]


def test_what_stands_in_the_way_is_named_and_never_deleted(small, tmp_path):
    run_well(*SMALL)
    # The configuration that it wrote makes the same again.
    listed = run_well("reproduce", "--config", "out/config.toml", "--dry-run").stdout
    assert 'budget = "tiny"' in listed
    assert "# 5 of 5 jobs are done:" in listed

    # A failing job is named; the same command does what is missing once the reason is gone.
    folder = tmp_path / "out/students/nll-pong-seed0"
    shutil.rmtree(folder)
    folder.with_name("nll-pong-seed0.json").unlink()
    folder.write_text("in the way")
    failed = run(*SMALL)
    assert failed.code == 1
    assert "rldistill reproduce: 1 of 2 jobs failed: nll of pong, seed 0: --out out/students/nll-pong" in failed.stderr
    folder.unlink()
    run_well(*SMALL)

    # Other settings are refused, and an earlier experiment is deleted on demand; nothing else is.
    small.write_text(small.read_text().replace("num_updates = 2", "num_updates = 3"))
    refused = run(*SMALL)
    assert refused.code == 1
    assert "kl of pong, seed 0 was done with other settings: distill_settings.num_updates was 2, is 3." in refused.line
    (tmp_path / "out/thesis.txt").write_text("precious")
    refused = run(*SMALL, "--overwrite")
    assert refused.code == 1
    assert "--overwrite would delete thesis.txt" in refused.line
    (tmp_path / "out/thesis.txt").unlink()
    run_well(*SMALL, "--overwrite")
    record = json.loads((tmp_path / "out/students/kl-pong-seed0.json").read_text())
    assert record["result"]["num_updates"] == 3


def test_an_experiment_must_be_named():
    refused = run("reproduce", "--budget", "smoke")
    assert refused.code == 2
    assert "missing argument: expected an experiment" in refused.line
