import json

import rldistill as rd
from rldistill.envs import make_task
from rldistill.exports.contract import make_contract
from rldistill.exports.names import Names
from rldistill.verbs.export import export
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.commands import run, run_well
from tests.kit.small_policies import box_task, small_policy


def saved(policy, path):
    policy.save(path)
    return path


def test_an_export_and_the_policy_it_was_made_of_have_one_contract(tmp_path):
    teacher = saved(hand_made_teacher(), tmp_path / "teacher.safetensors")
    export(teacher, tmp_path / "cart.pt", num_episodes=1, num_threads=1)
    said = run_well("inspect", tmp_path / "cart.pt", "--against", tmp_path / "cart.pt.contract.json")
    assert said.stdout == "no difference\n"


def test_what_a_policys_file_does_not_state_is_no_difference(tmp_path):
    teacher = saved(hand_made_teacher(), tmp_path / "teacher.safetensors")
    (tmp_path / "names.json").write_text(
        '{"observation": ["x", {"name": "rest", "size": 3, "unit": "m"}], "action": [{"name": "push", "unit": "N"}]}'
    )
    for number, names in enumerate([None, tmp_path / "names.json", {"v": (1, 2)}]):
        out = tmp_path / f"cart{number}.pt"
        export(teacher, out, names=names, num_episodes=1, num_threads=1)
        for pair in ((out, teacher), (teacher, out)):
            assert run_well("inspect", pair[0], "--against", pair[1]).stdout == "no difference\n"


def test_a_contract_from_before_clock_and_zeros_were_said_is_no_difference(tmp_path):
    task = make_task("CartPole-v1", {"zero_padding": 2, "time_feature": 500}).task
    policy = saved(small_policy(task), tmp_path / "clock.safetensors")
    contract = make_contract(rd.load_policy(policy), Names(), None)
    for term in contract["observation"]["terms"]:
        term.pop("clock", None)
        term.pop("constant", None)
    (tmp_path / "earlier.json").write_text(json.dumps(contract))
    for pair in ((tmp_path / "earlier.json", policy), (policy, tmp_path / "earlier.json")):
        assert run_well("inspect", pair[0], "--against", pair[1]).stdout == "no difference\n"


def test_contracts_of_other_numbers_than_a_policys_are_told_from_it(tmp_path):
    ours = saved(small_policy(), tmp_path / "a.safetensors")
    export(saved(hand_made_teacher(), tmp_path / "b.safetensors"), tmp_path / "cart.pt", num_episodes=1, num_threads=1)
    result = run("inspect", ours, "--against", tmp_path / "cart.pt")
    assert result.code == 1
    assert "action action: choices [3] against [2]" in result.stdout
    broken = json.loads((tmp_path / "cart.pt.contract.json").read_text())
    del broken["observation"]["terms"][0]["slice"]
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    assert run("inspect", ours, "--against", tmp_path / "broken.json").code == 1


def test_policies_that_differ_are_told_term_by_term_and_exit_with_1(tmp_path):
    ours = saved(small_policy(box_task(low=-0.5, high=0.5), output_kind="actions"), tmp_path / "a.safetensors")
    theirs = saved(small_policy(box_task(), output_kind="actions"), tmp_path / "b.safetensors")
    result = run("inspect", ours, "--against", theirs)
    assert result.code == 1
    assert result.stdout == "action action: clip [[-0.5, -0.5], [0.5, 0.5]] against [[-1.0, -1.0], [1.0, 1.0]]\n"
    assert result.line.endswith("differ in 1 places.")
    data = run("inspect", ours, "--against", theirs, "--json").json
    assert len(data["differences"]) == 1
    assert "error" in data
