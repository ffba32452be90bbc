"""What a policy takes for observations of several parts."""

import numpy as np
import pytest
import torch

from rldistill.errors import MismatchError
from rldistill.networks import parse_architecture
from rldistill.observations import fields, flat, no_rows
from rldistill.policies import TorchPolicy
from rldistill.sight import Sight
from rldistill.tasks import ObservationFingerprint, ObservationPart, Task
from rldistill.types import ActionLayout

CAMERA, JOINTS, MARK = ObservationPart("camera", (20, 20, 3), "uint8"), ObservationPart("joints", (2,)), "mark"
PARTS = (CAMERA, JOINTS, ObservationPart(MARK, ()))
FINGERPRINT = ObservationFingerprint((1203,), "float32", ActionLayout.discrete(3), observation_parts=PARTS)
TASK = Task("made-up", FINGERPRINT)


def a_policy(architecture="mlp:8"):
    generator = torch.Generator().manual_seed(0)
    return TorchPolicy.create(parse_architecture(architecture), [TASK], zero_output=False, generator=generator)


def observations(num_rows=21):
    rng = np.random.default_rng(0)
    rows = no_rows(FINGERPRINT, num_rows)
    rows["camera"] = rng.integers(0, 256, rows["camera"].shape)
    rows["joints"], rows[MARK] = rng.normal(size=(num_rows, 2)), rng.normal(size=num_rows)
    return rows


@pytest.mark.parametrize("architecture", ["mlp:8", "combined:4:8:8"])
def test_parts_by_name_side_by_side_and_as_the_environment_gives_them_get_the_same_answers(architecture):
    policy, rows = a_policy(architecture), observations()
    ways = [rows, fields(rows), {name: torch.from_numpy(p.copy()) for name, p in fields(rows).items()}, flat(rows)]
    answers = [policy(way)[0].q_values for way in ways]
    assert answers[0] is not None and answers[0].abs().max() > 0
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], rtol=0, atol=0)
    one, _ = policy.act(rows[:1])
    assert one == policy.act(flat(rows[:1]))[0]


@pytest.mark.parametrize(
    ("architecture", "seen"),
    [
        *[("mlp:8", ("camera",)), ("mlp:8", (MARK, "joints")), ("mlp:8", ("joints", "camera"))],
        *[("combined:4:8:8", ("camera", MARK)), ("gru:4", ("joints", MARK))],
    ],
)
def test_neither_outputs_nor_features_change_with_parts_that_are_not_seen(architecture, seen):
    generator = torch.Generator().manual_seed(0)
    network = parse_architecture(architecture)
    policy = TorchPolicy.create(network, [TASK], zero_output=False, generator=generator, sight=Sight(seen))
    rows, others = fields(observations()), fields(observations()[::-1])
    before, after = (
        policy(rows | {name: given[name] for name in rows if name not in seen}) for given in (rows, others)
    )
    assert torch.equal(before[0].raw, after[0].raw)
    assert before[0].features is not None and torch.equal(before[0].features, after[0].features)
    other, _ = policy(rows | {name: others[name] for name in seen})
    assert not torch.equal(before[0].raw, other.raw)


def test_a_part_that_is_missing_or_of_another_shape_is_named():
    policy, rows = a_policy(), observations(2)
    wanted = r"takes observations of the parts camera \[B, 20, 20, 3\], joints \[B, 2\], mark \[B\], got "
    with pytest.raises(MismatchError, match=wanted + r"camera \[2, 20, 20, 3\], mark \[2\]\.$"):
        policy({"camera": rows["camera"], MARK: rows[MARK]})
    with pytest.raises(MismatchError, match=wanted + r"camera \[2, 20, 20, 3\], joints \[2, 3\], mark \[2\]\.$"):
        policy({"camera": rows["camera"], "joints": np.zeros((2, 3), np.float32), MARK: rows[MARK]})
