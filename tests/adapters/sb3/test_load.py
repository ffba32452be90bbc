"""Whatever is wrong with a zip, or beside it, loading it is one line; nothing in it is executed."""

import json
import math

import numpy as np
import pytest
import torch

from rldistill.adapters.sb3 import load as load_module
from rldistill.adapters.sb3.load import load_sb3
from rldistill.errors import PolicyFileError, TeacherWarning
from rldistill.tasks import Task
from tests.adapters.sb3.made_up import BOX, DISCRETE, Intruder, pack, pickled, ppo_data, ppo_weights

EXPORT_IT = (
    "Export it to ONNX or TorchScript, and load that; or load it with Stable-Baselines3 and pass its network: "
    "rd.load_policy(module, task=…, outputs=…)."
)


@pytest.fixture
def load(tmp_path):
    def load_bytes(content, **options):
        (tmp_path / "p.zip").write_bytes(content)
        return load_sb3(tmp_path / "p.zip", **options)

    return load_bytes


@pytest.fixture
def refusal(load, tmp_path):
    """Return a function from the bytes of a zip to the line with which it is refused, without the file's name."""

    def refuse(content, **options):
        with pytest.raises(PolicyFileError) as caught:
            load(content, **options)
        line = str(caught.value)
        assert "\n" not in line
        assert line.endswith((".", "?"))
        return line.replace(str(tmp_path / "p.zip"), "FILE")

    return refuse


def test_a_zip_made_by_hand_loads(load):
    policy = load(pack())
    weights = ppo_weights()
    observations = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    hidden = torch.tanh(
        observations @ weights["mlp_extractor.policy_net.0.weight"].T + weights["mlp_extractor.policy_net.0.bias"]
    )
    hidden = torch.tanh(
        hidden @ weights["mlp_extractor.policy_net.2.weight"].T + weights["mlp_extractor.policy_net.2.bias"]
    )
    expected = hidden @ weights["action_net.weight"].T + weights["action_net.bias"]
    torch.testing.assert_close(policy(observations)[0].logits, expected, rtol=1e-5, atol=1e-5)
    assert (policy.name, policy.tasks[0].name, policy.behaviour) == ("ppo unnamed", "unnamed", "greedy")
    assert policy.spec.architecture.name == "mlp:4x5"


def test_the_task_is_the_users_word_before_that_of_the_files(load, tmp_path):
    (tmp_path / "args.yml").write_text("env: CartPole-v1\nalgo: ppo\n")
    assert load(pack()).tasks[0].name == "CartPole-v1"
    named = Task("Other-v0", load(pack()).tasks[0].fingerprint)
    assert load(pack(), task=named).tasks[0].name == "Other-v0"


# Hostile


def test_pickled_fields_are_not_read(load, tmp_path):
    target = tmp_path / "broken in"
    bomb = pickled(Intruder(target))
    data = ppo_data()
    for key in ("policy_class", "observation_space", "action_space"):
        data[key] = {**data[key], ":serialized:": bomb}
    data["policy_kwargs"] = {":type:": "<class 'dict'>", ":serialized:": bomb}
    data |= {"lr_schedule": {":type:": "<class 'function'>", ":serialized:": bomb}, "_last_obs": {":serialized:": bomb}}
    load(pack(data))
    assert not target.exists()


@pytest.mark.parametrize("member", ["policy.pth", "pytorch_variables.pth", "policy.optimizer.pth", "system_info.txt"])
def test_pickles_in_place_of_members_are_not_executed(load, tmp_path, member):
    import pickle

    target = tmp_path / "broken in"
    content = pack(members={member: pickle.dumps(Intruder(target), 2)})
    if member == "policy.pth":
        with pytest.raises(
            PolicyFileError, match=r"^policy\.pth in .* is refused: its pickle wants posix\.mkdir, which "
        ):
            load(content)
    else:
        load(content)
    assert not target.exists()


def test_a_hostile_normaliser_beside_it_is_refused(refusal, tmp_path):
    import pickle

    (tmp_path / "vecnormalize.pkl").write_bytes(pickle.dumps(Intruder(tmp_path / "broken in")))
    assert "is refused: its pickle wants posix.mkdir, which is not allowed there." in refusal(pack())
    assert not (tmp_path / "broken in").exists()


# Damaged


def test_an_empty_file(refusal):
    assert refusal(b"") == "Policy file FILE is empty: got 0 bytes. Its download or copy was cut off. Fetch it again."


def test_truncated_files(refusal):
    content = pack()
    for length in range(1, len(content), 97):
        assert refusal(content[:length]).startswith("Policy file FILE cannot be read: ")


def test_a_zip_of_something_else(refusal):
    assert refusal(pack(members={"data": None})).startswith("Policy file FILE holds no 'data', only ")
    assert refusal(pack(members={"policy.pth": None})).startswith("Policy file FILE holds no 'policy.pth', only ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ("[]", "a list"),
        ("[" * 100_000, "is nested too deeply"),
        ("\xff", "Expecting value"),
    ],
)
def test_data_that_are_no_json(refusal, text, reason):
    line = refusal(pack(members={"data": text}))
    assert line.startswith(f"Policy file FILE: its data are not what Stable-Baselines3 writes: {reason}")


def test_data_without_a_field(refusal):
    data = ppo_data()
    del data["action_space"]
    assert refusal(pack(data)) == (
        "Policy file FILE: its data have no field 'action_space', which every zip of Stable-Baselines3 has. "
        "Was it written by another library?"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_no_number(refusal, value):
    weights = ppo_weights()
    weights["action_net.bias"][1] = value
    assert refusal(pack(weights=weights)) == (
        "policy.pth in FILE: tensor action_net.bias holds NaN or infinity. "
        "Its training diverged, or the file is damaged."
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_precision_are_converted_and_say_so(load, dtype):
    policy = load(pack(weights={name: tensor.to(dtype) for name, tensor in ppo_weights().items()}))
    name = str(dtype).removeprefix("torch.")
    assert policy.spec.provenance["source"]["weights_converted_from"] == [name]
    assert {parameter.dtype for parameter in policy.network.parameters()} == {torch.float32}


# Networks that cannot be rebuilt


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (None, "lstm_actor.weight_ih_l0 without lstm_actor.weight_hh_l0"),
        (8, "lstm_actor.weight_ih_l0 and lstm_actor.weight_hh_l0 of [16, 3] and [8, 4], expected those of a GRU or an"),
        (16, "layers that do not fit observations"),
    ],
)
def test_a_recurrent_layer_that_is_not_whole_is_refused(refusal, rows, reason):
    memory = {} if rows is None else {"lstm_actor.weight_hh_l0": torch.zeros(rows, 4)}
    weights = ppo_weights() | {"lstm_actor.weight_ih_l0": torch.zeros(16, 3)} | memory
    assert f"cannot be rebuilt: it has {reason}" in refusal(pack(weights=weights))


def test_unknown_layers_are_listed(refusal):
    weights = ppo_weights() | {
        "attention.weight": torch.zeros(2, 2),
        "mlp_extractor.policy_net.1.weight": torch.ones(4),
    }
    assert refusal(pack(weights=weights)) == (
        "Policy file FILE cannot be rebuilt: it has layers that no network of Stable-Baselines3 has: attention.weight, "
        "mlp_extractor.policy_net.1.weight. A policy or features extractor of its maker's own cannot be rebuilt from "
        f"its weights. {EXPORT_IT}"
    )
    assert "a network that no algorithm of Stable-Baselines3 has: a, b." in refusal(
        pack(weights={"a": torch.zeros(1), "b": torch.zeros(1)})
    )


def test_batch_normalisation_is_refused_by_name(refusal):
    weights = {"actor.latent_pi.0.running_mean": torch.zeros(3), "actor.mu.weight": torch.zeros(2, 3)}
    assert "it has batch normalisation (CrossQ), which is not supported." in refusal(pack(weights=weights))


def test_a_policy_of_its_makers_own_is_refused_by_name(refusal):
    policy_class = {"__module__": "my_code.policies", "__init__": "<function MyPolicy.__init__ at 0x7f>"}
    assert refusal(pack(ppo_data(policy_class=policy_class))) == (
        "Policy file FILE has a policy of its maker's own, my_code.policies.MyPolicy, which cannot be rebuilt from its "
        f"weights. {EXPORT_IT}"
    )


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        (
            {"features_extractor_class": "<class 'my_code.Extractor'>"},
            "a features extractor of its maker's own, my_code.Extractor",
        ),
        (
            {"activation_fn": "<class 'torch.nn.modules.activation.PReLU'>"},
            "the activation torch.nn.modules.activation.PReLU, expected one of ReLU, Tanh, ",
        ),
        ({"activation_fn": "<class 'my_code.ReLU'>"}, "the activation my_code.ReLU, expected one of "),
        ({"activation_fn": "functools.partial(<class 'torch.nn.LeakyReLU'>)"}, "the activation functools.partial("),
    ],
)
def test_what_the_zip_was_made_with_and_is_not_known(refusal, kwargs, reason):
    line = refusal(pack(ppo_data(policy_kwargs=kwargs)))
    assert line.startswith(f"Policy file FILE cannot be rebuilt: it has {reason}")
    assert line.endswith(EXPORT_IT)


def test_features_of_their_own_for_noise_are_named(refusal):
    weights = ppo_weights() | {"sde_features_extractor.0.weight": torch.zeros(16, 3), "log_std": torch.zeros(16, 2)}
    assert refusal(pack(weights=weights)) == (
        "Policy file FILE cannot be rebuilt: it has features of their own for its noise (gSDE with sde_net_arch, until "
        f"1.8), which are not read. {EXPORT_IT}"
    )


@pytest.mark.parametrize(
    ("data", "weights", "reason"),
    [
        ({"observation_space": BOX | {"_shape": [4]}}, None, "3 inputs, and observations of box [4]"),
        ({"observation_space": BOX | {"_shape": [10**15]}}, None, "3 inputs, and observations of box [10000"),
        ({"action_space": DISCRETE | {"n": "3"}}, None, "2 outputs for actions of discrete [3]"),
        ({"action_space": BOX | {"_shape": [10**12], "low": "[-1. ... -1.]", "high": "[1. ... 1.]"}}, None,
         "2 outputs for actions of box [1000000000000]"),
        ({"action_space": BOX | {"_shape": [2]}}, None, "actions of a box without a log_std"),
        ({}, {"action_net.weight": torch.zeros(2, 7)}, "a layer of 5 outputs below one of 7 inputs"),
        ({}, {"action_net.bias": torch.zeros(3)}, "layer action_net of weight [2, 5] and bias [3]"),
        ({}, {"mlp_extractor.policy_net.0.weight": torch.zeros(4)}, "layer mlp_extractor.policy_net.0 of weight [4]"),
        ({"action_space": BOX | {"_shape": [2]}}, {"log_std": torch.zeros(7)}, "2 means of 5 features, and a log_std"),
    ],
)  # fmt: skip
def test_layers_that_do_not_fit(refusal, data, weights, reason):
    line = refusal(pack(ppo_data(**data), ppo_weights() | (weights or {})))
    assert line.startswith(f"Policy file FILE cannot be rebuilt: it has {reason}")


def test_a_box_without_bounds_cannot_be_squashed(refusal):
    weights = {"actor.mu.0.weight": torch.zeros(3, 3), "actor.mu.0.bias": torch.zeros(3)}
    endless = BOX | {"low": "[-inf -inf -inf]"}
    assert "it has squashed actions of a box without bounds." in refusal(pack(ppo_data(action_space=endless), weights))


def test_a_clipped_gaussian_of_a_box_without_bounds_can_be_saved(load, tmp_path):
    weights = ppo_weights(num_actions=3) | {"log_std": torch.zeros(3)}
    policy = load(pack(ppo_data(action_space=BOX | {"low": "[-inf -inf -inf]"}), weights))
    policy.save(tmp_path / "p.safetensors")
    assert policy.tasks[0].fingerprint.action_layout.low == (-math.inf,) * 3


def test_old_zips_with_shared_layers(load):
    weights = {name.replace("policy_net.0", "shared_net.0").replace("policy_net.2", "policy_net.0"): tensor
               for name, tensor in ppo_weights().items() if "mlp_extractor.value_net" not in name}  # fmt: skip
    observations = np.linspace([-1, -1, -1], [1, 1, 1], 9, dtype=np.float32)
    torch.testing.assert_close(
        load(pack(weights=weights))(observations)[0].logits, load(pack())(observations)[0].logits
    )


# Beside the zip


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("Ant-v3.zip", "vecnormalize.pkl"),
        ("Ant-v3.zip", "vec_normalize.pkl"),
        ("Ant-v3.zip", "Ant-v3/vecnormalize.pkl"),
        ("best_model.zip", "Ant-v3/vecnormalize.pkl"),
        ("rl_model_1000_steps.zip", "rl_model_vecnormalize_1000_steps.pkl"),
    ],
)
def test_the_normaliser_is_found_by_itself(tmp_path, monkeypatch, name, place):
    folder = tmp_path / "Ant-v3_1"
    (folder / place).parent.mkdir(parents=True)
    (folder / place).write_bytes(b"statistics")
    (folder / name).write_bytes(pack())
    found = []
    monkeypatch.setattr(load_module, "read_normalizer", lambda path: found.append(path))
    monkeypatch.setattr(load_module, "_source", lambda *_: {})
    load_sb3(folder / name)
    assert found == [folder / place]


def test_a_named_normaliser_must_be_there(refusal):
    assert "Normaliser file nowhere.pkl cannot be read: No such file or directory." in refusal(
        pack(), normalizer="nowhere.pkl"
    )


@pytest.mark.parametrize(
    ("config", "warns"),
    [("normalize: true", True), ("normalize: dict(norm_obs=False)", False), ("gamma: 0.9", False)],
)
def test_the_zoos_word_on_normalisation(load, tmp_path, recwarn, config, warns):
    (tmp_path / "config.yml").write_text(config)
    policy = load(pack())
    assert len(recwarn) == len(policy.spec.provenance["source"]["notes"]) == int(warns)


def test_actions_that_were_masked_are_a_warning(load):
    policy_class = {"__module__": "sb3_contrib.common.maskable.policies", "__init__": "<function A.__init__ at 0x7f>"}
    with pytest.warns(
        TeacherWarning, match=r"\(MaskablePPO\) was told which actions were allowed\. Nobody tells it here"
    ):
        policy = load(pack(ppo_data(policy_class=policy_class)))
    assert policy.spec.provenance["source"]["algorithm"] == "ppo_mask"


@pytest.mark.parametrize(
    ("settings", "num_critics", "expected"),
    [
        ({"policy_delay": 1, "target_noise_clip": 0.0}, 1, "ddpg"),
        ({"policy_delay": 1, "target_noise_clip": 0.0}, 2, "td3/ddpg"),
        ({"policy_delay": 2, "target_noise_clip": 0.5}, 1, "td3"),
        ({"policy_delay": 1, "target_noise_clip": 0.5}, 1, "td3"),
        ({"policy_delay": 2, "target_noise_clip": 0.0}, 2, "td3"),
        ({}, 1, "td3/ddpg"),
    ],
)
def test_td3_and_ddpg_are_told_apart_by_how_they_learned(load, settings, num_critics, expected):
    policy_class = {"__module__": "stable_baselines3.td3.policies", "__init__": "<function TD3Policy.__init__ at 0x7f>"}
    weights = {"actor.mu.0.weight": torch.zeros(3, 3), "actor.mu.0.bias": torch.zeros(3)}
    weights |= {f"critic.qf{index}.0.weight": torch.zeros(1, 6) for index in range(num_critics)}
    data = ppo_data(policy_class=policy_class, action_space=BOX, **settings)
    policy = load(pack(data, weights))
    assert (policy.spec.provenance["source"]["algorithm"], policy.name) == (expected, f"{expected} unnamed")


def test_other_wrappers_are_a_warning(load, tmp_path):
    (tmp_path / "config.yml").write_text("env_wrapper: rl_zoo3.wrappers.MaskVelocityWrapper\n")
    with pytest.warns(
        TeacherWarning, match=r"its environment was wrapped in MaskVelocityWrapper, which is not done here"
    ):
        load(pack())


def test_the_recorded_return_of_a_zoo_run(tmp_path):
    returns = np.array([[1.0, 3.0], [10.0, 14.0], [5.0, 5.0]])
    np.savez(tmp_path / "evaluations.npz", timesteps=[1, 2, 3], results=returns, ep_lengths=returns)
    for name in ("best_model.zip", "Ant-v3.zip"):
        (tmp_path / name).write_bytes(pack())
    best, last = (
        load_sb3(tmp_path / f"{name}.zip").spec.provenance["source"]["recorded_return"]
        for name in ("best_model", "Ant-v3")
    )
    assert best == {
        "mean": 12.0,
        "standard_deviation": 2.0,
        "episodes": 2,
        "chosen": "best of 3 evaluations",
        "file": "evaluations.npz",
    }
    assert (last["mean"], last["chosen"]) == (5.0, "last of 3 evaluations")


def test_the_recorded_return_of_the_hub(load, tmp_path):
    (tmp_path / "results.json").write_text(
        json.dumps({"mean_reward": 250.5, "std_reward": 20.1, "n_eval_episodes": 10})
    )
    record = load(pack()).spec.provenance["source"]["recorded_return"]
    assert (record["mean"], record["standard_deviation"], record["episodes"]) == (250.5, 20.1, 10)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"[]", b'{"mean_reward": "NaN"}', b"[" * 100_000])
def test_a_record_that_cannot_be_read_is_no_record(load, tmp_path, content):
    for name in ("evaluations.npz", "results.json"):
        (tmp_path / name).write_bytes(content)
    assert load(pack()).spec.provenance["source"]["recorded_return"] is None


def test_evaluations_that_are_pickled_are_not_executed(load, tmp_path):
    target = tmp_path / "broken in"
    np.savez(tmp_path / "evaluations.npz", results=np.array([Intruder(target)], dtype=object))
    assert load(pack()).spec.provenance["source"]["recorded_return"] is None
    assert not target.exists()


# Statistics of another run


def statistics(path, shape=(3,)):
    np.savez(path.with_suffix(".npz"), mean=np.ones(shape), var=np.ones(shape))
    path.with_suffix(".npz").rename(path)


def on_policy_data(last_original):
    observation = {":type:": "<class 'numpy.ndarray'>", ":serialized:": pickled(np.zeros((1, 3), np.float32))}
    return ppo_data(_last_obs=observation, _last_original_obs=observation if last_original else None)


@pytest.mark.parametrize(
    ("config", "data", "says"),
    [
        ("gamma: 0.9", ppo_data(), "config.yml says"),
        ("normalize: false", on_policy_data(last_original=True), "config.yml says"),
        (None, on_policy_data(last_original=False), "the zip itself says"),
    ],
)
def test_statistics_of_another_run_are_not_used_and_said_not_to_be(load, tmp_path, config, data, says):
    statistics(tmp_path / "vec_normalize.pkl")
    if config is not None:
        (tmp_path / "config.yml").write_text(config)
    with pytest.warns(TeacherWarning) as caught:
        policy = load(pack(data))
    path = tmp_path / "vec_normalize.pkl"
    assert [str(warning.message) for warning in caught] == [
        f"Policy file {tmp_path / 'p.zip'}: {path} lies beside it and is not used, since {says} that observations were "
        "not normalised: it is probably of another run. If it belongs to this zip, name it: --normalizer "
        f"{path}."
    ]
    assert policy.normalization is None
    assert load(pack(data), normalizer=path).normalization is not None


@pytest.mark.parametrize(
    ("config", "data"),
    [("normalize: true", ppo_data()), (None, ppo_data()), (None, on_policy_data(last_original=True))],
)
def test_statistics_that_nothing_speaks_against_are_used(load, tmp_path, config, data):
    statistics(tmp_path / "vecnormalize.pkl")
    if config is not None:
        (tmp_path / "config.yml").write_text(config)
    assert load(pack(data)).normalization.mean == (1, 1, 1)


def test_statistics_of_other_observations_name_their_file_and_the_way_on(refusal, tmp_path):
    statistics(tmp_path / "vecnormalize.pkl", (17,))
    assert refusal(pack()) == (
        f"Policy file FILE: Normaliser file {tmp_path / 'vecnormalize.pkl'} has statistics of shape [17] for "
        "observations of shape [3]. It is probably of another run: name the zip's own with --normalizer FILE (in "
        "Python normalizer=), or do without: --normalizer none."
    )


def test_a_damaged_normaliser_beside_a_zip_can_be_done_without(refusal, load, tmp_path):
    (tmp_path / "vecnormalize.pkl").write_bytes(b"\x80\x04")
    assert refusal(pack()).endswith(
        "Save its mean and var to an .npz and name that with --normalizer, or do without: --normalizer none."
    )
    assert load(pack(), normalizer="none").normalization is None


def off_policy_data(last, original):
    policy_class = {"__module__": "stable_baselines3.sac.policies", "__init__": "<function SACPolicy.__init__ at 0x7>"}
    kept = {"_last_obs": last, "_last_original_obs": original}
    return ppo_data(
        policy_class=policy_class,
        action_space=BOX,
        **{name: {":serialized:": pickled(value)} for name, value in kept.items() if value is not None},
    )


INSIDE, OUTSIDE = np.full((2, 3), 0.5, np.float32), np.full((2, 3), 1.5, np.float32)


@pytest.mark.parametrize(
    ("last", "original", "warns"),
    [
        (OUTSIDE, INSIDE, True),  # the environment's own lie in its space of ±1, what the network saw does not
        (INSIDE, INSIDE.astype(np.float64), True),  # the wrapper makes float32 of everything
        (INSIDE + 0.1, INSIDE, False),  # one step later
        (OUTSIDE, OUTSIDE, False),  # the environment does not keep to its space
        (INSIDE + 0.504, INSIDE, False),  # rounding
        (None, None, False),
        (OUTSIDE, "no array", False),
    ],
)
def test_an_off_policy_zip_that_saw_what_is_not_its_environments_is_missed_its_statistics(
    load, recwarn, last, original, warns
):
    weights = {"actor.latent_pi.0.weight": torch.zeros(4, 3), "actor.latent_pi.0.bias": torch.zeros(4)}
    for head in ("mu", "log_std"):
        weights |= {f"actor.{head}.weight": torch.zeros(3, 4), f"actor.{head}.bias": torch.zeros(3)}
    load(pack(off_policy_data(last, original), weights))
    assert [str(warning.message).partition(": its ")[2][:37] for warning in recwarn] == [
        "teacher saw normalised observations, "
    ] * warns


def test_options_that_nobody_understands_are_a_warning(load, tmp_path):
    (tmp_path / "config.yml").write_text("delay_observations: 3\ngamma: 0.9\nvec_env_wrapper: my.Blur\n")
    (tmp_path / "args.yml").write_text("env: Balance-v0\nenv_kwargs: !!python/tuple [1]\nseed: 3\n")
    with pytest.warns(TeacherWarning) as caught:
        load(pack())
    wrapped, unknown = (str(warning.message) for warning in caught)
    assert "its environment was wrapped in Blur, which is not done here" in wrapped
    assert unknown == (
        f"Policy file {tmp_path / 'p.zip'}: the files beside it name delay_observations (config.yml), env_kwargs "
        "(args.yml), which is not understood here and was left out. Where it changes what its teacher saw or did, it "
        "plays badly: let an environment of yours do the same (--task module:EnvId)."
    )
