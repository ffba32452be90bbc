"""Students that learn features and state values of their teachers: datasets, live play, stops, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rldistill.data import Dataset
from rldistill.errors import MismatchError, UsageError
from rldistill.events import ProgressEvent
from rldistill.networks import parse_architecture
from rldistill.policies import TorchPolicy, load_policy
from rldistill.verbs.collect import collect
from tests.kit.cart_pole import hand_made_teacher, short_cart_pole
from tests.kit.flat import distill

SMALL = {"student": "mlp:8", "num_updates": 60, "batch_size": 32, "evaluate_period": 20, "precision": "float32"}
BOTH = {"value_weight": 0.5, "feature_weight": 0.01}
LIVE = {"collect_steps": 400, "collect_period": 30, "exploration_epsilon": 0.3, "num_envs": 4}


def actor_critic(*, value_head: bool = True) -> TorchPolicy:
    return TorchPolicy.create(
        replace(parse_architecture("mlp:6"), value_head=value_head),
        [short_cart_pole().task],
        output_kind="logits",
        behaviour="sample",
        name="actor-critic",
        zero_output=False,
        generator=torch.Generator().manual_seed(0),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("further") / "data"
    collect(actor_critic(), num_steps=1500, out=path, store="value, features", num_threads=1)
    return path


def test_a_dataset_holds_the_values_and_features_that_were_asked_for(data, tmp_path):
    dataset = Dataset.open(data)
    rows = np.arange(0, 1500, 10)
    output, _ = actor_critic()(dataset.observations(rows))
    np.testing.assert_array_equal(dataset.field("value")[rows], output.value.numpy())
    np.testing.assert_array_equal(dataset.field("features")[rows], output.features.numpy())
    collect(actor_critic(), num_steps=300, out=tmp_path / "plain", num_threads=1)
    assert set(Dataset.open(tmp_path / "plain").targets(rows[:2])) == {"logits"}


@pytest.mark.parametrize("is_live", [False, True])
def test_a_student_learns_its_teachers_values(data, tmp_path, is_live):
    source = {"teacher": actor_critic(), **LIVE} if is_live else {"data": data}
    student = distill(out=tmp_path / "r", **SMALL | source | BOTH | {"num_updates": 300, "learning_rate": 0.01})
    loaded = load_policy(tmp_path / "r" / "student.safetensors")
    assert loaded.hash == student.hash
    observations = Dataset.open(data).observations(np.arange(1500))
    taught, learned = (policy(observations)[0].value for policy in (actor_critic(), loaded))
    assert (taught - learned).square().mean() < 0.1 * taught.var()


def test_features_change_what_the_student_learns_and_leave_nothing_in_its_file(data, tmp_path):
    plain = distill(data, out=tmp_path / "plain", **SMALL)
    taught = distill(data, out=tmp_path / "taught", feature_weight=0.1, **SMALL)
    assert taught.network.state_dict().keys() == plain.network.state_dict().keys()
    assert not torch.equal(taught.network.state_dict()["torso.1.weight"], plain.network.state_dict()["torso.1.weight"])
    assert taught.spec.provenance["config"]["feature_weight"] == 0.1


def stop_at_45(event) -> bool:
    return isinstance(event, ProgressEvent) and (event.phase, event.done) == ("distill", 45)


@pytest.mark.parametrize("is_live", [False, True])
def test_a_run_that_stopped_goes_on_with_its_projection(data, tmp_path, is_live):
    source = {"teacher": actor_critic(), **LIVE} if is_live else {"data": data}
    settings = SMALL | BOTH | source
    whole = distill(out=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        distill(out=tmp_path / "part", callbacks=[stop_at_45], **settings)
    assert distill(out=tmp_path / "part", resume=True, **settings).hash == whole.hash


def line(error, expected):
    return pytest.raises(error, check=lambda raised: str(raised) == expected)


def test_a_teacher_that_gives_no_values_is_refused_before_anything_is_played(tmp_path):
    teacher = actor_critic(value_head=False)
    expected = (
        "{}: teacher actor-critic gives no value, only logits and features. Its critic is missing in its file, or a "
        "network apart from its policy. Leave {} out, or use another teacher."
    )
    with line(MismatchError, expected.format("store", "store")):
        collect(teacher, num_steps=300, out=tmp_path / "data", store="value")
    with line(MismatchError, expected.format("value_weight", "value_weight")):
        distill(teacher=teacher, out=tmp_path / "r", value_weight=1.0, **SMALL | LIVE)
    assert not list(tmp_path.iterdir())


def test_a_dataset_without_them_and_words_that_nobody_knows_are_refused(tmp_path):
    collect(hand_made_teacher(), num_steps=500, out=tmp_path / "d", num_threads=1)
    expected = (
        f"feature_weight: Dataset {tmp_path / 'd'} holds no features of its teacher. Collect with --store features, or "
        "leave feature_weight out."
    )
    with line(MismatchError, expected):
        distill(tmp_path / "d", out=tmp_path / "r", feature_weight=0.01, **SMALL)
    with line(UsageError, "store: got 'critic', expected value or features."):
        collect(hand_made_teacher(), num_steps=500, out=tmp_path / "e", store="critic")
    with line(UsageError, "value_weight belongs with a dataset and --teacher, got it with online."):
        distill(online=True, task="CartPole-v1", out=tmp_path / "r", value_weight=1.0, student="mlp:8")
    assert not (tmp_path / "r").exists()


def test_a_module_of_ones_own_learns_outputs_alone(data, tmp_path):
    module = nn.Linear(4, 2)
    with pytest.raises(UsageError, match=r"^feature_weight: a module of your own gives its outputs alone\. Leave it"):
        distill(data, out=tmp_path / "r", feature_weight=0.01, **SMALL | {"student": module})


def test_a_file_with_another_head_of_values_is_no_beginning(data, tmp_path):
    distill(data, out=tmp_path / "plain", **SMALL)
    begun = {"init_from": tmp_path / "plain" / "student.safetensors"}
    with pytest.raises(MismatchError, match=r"student\.safetensors has no head of state values\. Leave out --value-we"):
        distill(data, out=tmp_path / "r", value_weight=1.0, **SMALL | begun)
