"""Every kind of policy passes the kit, and the kit finds what is wrong with those that only look like policies."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rldistill.adapters.conformance import NonconformingError, check_policy
from rldistill.adapters.load import load_policy
from rldistill.policies import TorchPolicy
from tests.kit.other_libraries import (
    ActorCritic,
    CategoricalQNetwork,
    MLPModel,
    PPOAtari,
    QDagger,
    QNetwork,
    SACActor,
    TD3Actor,
    randomised,
)
from tests.kit.small_policies import box_task, small_policy, vector_task

VECTORS = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
FRAMES = np.random.default_rng(0).integers(0, 256, (20, 4, 84, 84), np.uint8)


def answers(module, rows):
    with torch.no_grad():
        return torch.cat([module(part.float()) for part in torch.from_numpy(rows).split(16)]).numpy()


@pytest.mark.parametrize("make", [QNetwork, CategoricalQNetwork, SACActor, TD3Actor], ids=lambda make: make.__name__)
def test_cleanrl_on_vectors(make, tmp_path):
    module = randomised(make())
    torch.save(module.state_dict(), tmp_path / "m.pt")
    check_policy(load_policy(tmp_path / "m.pt"), VECTORS, reference=answers(module, VECTORS))


@pytest.mark.parametrize("make", [QDagger, PPOAtari], ids=lambda make: make.__name__)
def test_cleanrl_on_images(make, tmp_path):
    module = randomised(make())
    torch.save(module.state_dict(), tmp_path / "m.pt")
    check_policy(load_policy(tmp_path / "m.pt"), FRAMES, reference=answers(module, FRAMES))


@pytest.mark.parametrize(("make", "key"), [(ActorCritic, "model_state_dict"), (MLPModel, "actor_state_dict")])
def test_rsl_rl(make, key, tmp_path):
    module = randomised(make())
    torch.save({key: module.state_dict()}, tmp_path / "m.pt")
    policy = load_policy(tmp_path / "m.pt", task=box_task(), activation="elu")
    check_policy(policy, VECTORS, reference=answers(module, VECTORS))


def test_onnx(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    pytest.importorskip("onnx", reason="needs the extra `export`")
    from tests.kit.onnx_files import expected, layers, mlp_model, saved

    path = saved(mlp_model(), tmp_path / "m.onnx")
    policy = load_policy(path, task=vector_task(), outputs="logits", behaviour="sample")
    check_policy(policy, VECTORS, reference=expected(layers(), VECTORS))


def test_an_exported_program_a_function_and_a_module(tmp_path):
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes=dynamic), tmp_path / "m.pt2")
    options = {"task": vector_task(), "outputs": "q_values"}
    check_policy(load_policy(tmp_path / "m.pt2", trust=True, **options), VECTORS, reference=answers(module, VECTORS))
    check_policy(load_policy(lambda rows: module(rows), **options), VECTORS, reference=answers(module, VECTORS))
    check_policy(load_policy(module, **options), VECTORS, reference=answers(module, VECTORS))


def test_a_published_zip_of_stable_baselines3(shared_teachers):
    folder = shared_teachers / "sb3" / "a2c" / "CartPole-v1"
    check_policy(load_policy(next(folder.glob("*.zip"))), VECTORS)


class Altered:
    """Passes everything on to a policy but what is replaced."""

    def __init__(self, policy: TorchPolicy, **replaced):
        self._policy, self._replaced = policy, replaced

    def __getattr__(self, name):
        return self._replaced[name] if name in self._replaced else getattr(self._policy, name)

    def __call__(self, observations, state=None):
        call = self._replaced.get("call")
        return self._policy(observations, state) if call is None else (call(self._policy, observations), state)


def noisy(policy, observations):
    output, _ = policy(observations)
    return replace(output, q_values=output.q_values + torch.rand(1))


def centred(policy, observations):
    output, _ = policy(observations)
    return replace(output, q_values=output.q_values - output.q_values.mean(dim=0))


def careless(policy, observations):
    output, _ = policy(observations)
    observations *= 0.5
    return output


def trusting(policy, observations):
    return policy(observations[:, :4])[0]


@pytest.mark.parametrize(
    ("replaced", "line"),
    [
        ({"output_kind": "logits"}, "outputs are q_values, output_kind says logits"),
        ({"call": noisy}, "the same observations had other outputs the second time"),
        ({"call": centred}, "outputs depend on the rest of the batch"),
        ({"call": careless}, "the same observations had other outputs the second time"),
        ({"call": trusting}, "it took observations of another shape"),
        ({"call": lambda policy, rows: policy(rows.reshape(-1, 4))[0]}, "it took observations of another shape"),
        ({"hash": "abc"}, "the hash is no SHA-256, or not always the same"),
        ({"act": lambda rows, **_: (np.zeros(len(rows)), None)}, "an action is not one of discrete [3]"),
        ({"act": lambda rows, **_: (np.zeros((len(rows), 1), np.int64), None)}, "actions are [40, 1], expected [40]"),
        ({"for_task": lambda name: None}, "it took a task that it has no head for"),
    ],
)
def test_what_is_wrong_is_found(replaced, line):
    with pytest.raises(NonconformingError) as caught:
        check_policy(Altered(small_policy(), **replaced), VECTORS.copy())
    assert str(caught.value) == line


def test_a_library_that_says_otherwise():
    policy = small_policy()
    with pytest.raises(NonconformingError, match=r"^outputs differ from the reference by up to 0\.1$"):
        check_policy(policy, VECTORS, reference=policy(VECTORS)[0].raw.numpy() + 0.1)


def test_too_few_observations_prove_nothing():
    with pytest.raises(NonconformingError, match="eight different observations"):
        check_policy(small_policy(), np.ones((20, 4), np.float32))
