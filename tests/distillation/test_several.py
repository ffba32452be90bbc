"""Students that are trained at once come out as if each had been alone."""

import copy

import pytest
import torch

from rldistill.distillation import OPTIMIZERS, Distiller
from rldistill.distillation.batch import Window
from rldistill.distillation.loop import UpdateDivergedError
from rldistill.distillation.several import SeveralDistiller
from rldistill.losses import make_loss
from rldistill.networks import GaussianOptions, PolicyNetwork, parse_architecture
from rldistill.networks.output_layer import OutputLayer
from rldistill.networks.stacked import can_be_stacked
from rldistill.schedules import constant, linear
from rldistill.types import ActionLayout

NAMES = ("mlp:8", "mlp:6x5", "mlp:2", "mlp:16x16", "mlp:4:3")
CHOICE = ActionLayout.discrete(3)
BOX = ActionLayout("box", (2,), (-1.0, -2.0), (1.0, 2.0), "clip")


def make_networks(kind="logits", layout=CHOICE, std="state", heads=1, names=NAMES):
    layers = {str(head): OutputLayer(kind, layout, GaussianOptions(std)) for head in range(heads)}
    return [
        PolicyNetwork(
            parse_architecture(name),
            (7,),
            layers,
            zero_output=False,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed, name in enumerate(names)
    ]


def settings(loss, temperature=None, heads=1, optimizer="adam"):
    return {
        "losses": dict.fromkeys(range(heads), loss),
        "optimizer": lambda weights: OPTIMIZERS[optimizer](weights, 1e-2, 1e-3),
        "learning_rate": linear(1e-2, 1e-3),
        "parameters": dict.fromkeys(range(heads), {} if temperature is None else {"temperature": temperature}),
        "num_updates": 20,
        "max_gradient_norm": 0.5,
        "precision": "float32",
    }


def train_alone(network, batches, given):
    made = given | {"optimizer": given["optimizer"](list(network.parameters()))}
    distiller = Distiller(network, **made)
    return [distiller.update(batch, update) for update, batch in enumerate(batches)]


def draw(field, width, *, heads=(0,), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        Window.of_steps(
            head,
            {"observation": torch.randn(16, 7, generator=generator)},
            {name: torch.randn(16, width, generator=generator) for name in field},
            "",
        )
        for head in heads
    )


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize(
    ("loss", "kind", "std", "fields"),
    [
        ("sharpened_kl", "logits", "state", ["q_values"]),
        ("diag_gaussian_kl", "gaussian", "state", ["mean", "log_std"]),
        ("diag_gaussian_kl", "gaussian", "parameter", ["mean", "log_std"]),
        ("mean_mse", "actions", "state", ["actions"]),
    ],
)
def test_after_20_updates_each_equals_the_student_that_was_trained_alone(loss, kind, std, fields, optimizer):
    layout = CHOICE if kind == "logits" else BOX
    teacher = {"q_values": "q_values", "mean": "gaussian", "actions": "actions"}[fields[0]]
    function = make_loss(loss, teacher, layout)
    given = settings(function, constant(0.1) if loss == "sharpened_kl" else None, optimizer=optimizer)
    batches = [draw(fields, 3 if layout is CHOICE else 2, seed=seed) for seed in range(20)]
    alone = make_networks(kind, layout, std)
    expected = [train_alone(network, batches, given) for network in alone]
    networks = make_networks(kind, layout, std)
    distiller = SeveralDistiller(networks, **given)
    records = [distiller.update(batch, update) for update, batch in enumerate(batches)]
    for network, other in zip(networks, alone, strict=True):
        for name, weight in other.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], weight, atol=1e-5, rtol=0)
    for update, record in enumerate(records):
        of_each = [student[update] for student in expected]
        assert record.losses == pytest.approx([one.loss for one in of_each], abs=1e-4)
        assert record.gradient_norms == pytest.approx([one.gradient_norm for one in of_each], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("heads", [(0, 1), (1,)])
def test_batches_of_several_tasks_teach_as_they_teach_a_student_alone(heads):
    given = settings(make_loss("q_mse", "q_values"), heads=2)
    batches = [draw(["q_values"], 3, heads=heads, seed=seed) for seed in range(5)]
    alone, networks = make_networks("q_values", heads=2), make_networks("q_values", heads=2)
    for network in alone:
        train_alone(network, batches, given)
    distiller = SeveralDistiller(networks, **given)
    for update, batch in enumerate(batches):
        distiller.update(batch, update)
    for network, other in zip(networks, alone, strict=True):
        torch.testing.assert_close(dict(network.named_parameters()), dict(other.named_parameters()), atol=1e-5, rtol=0)


def test_padding_stays_zero():
    given = settings(make_loss("q_mse", "q_values"))
    distiller = SeveralDistiller(make_networks("q_values", names=("mlp:2", "mlp:8")), **given)
    for update in range(20):
        distiller.update(draw(["q_values"], 3, seed=update), update)
    (stack,) = distiller.state_dict()["stacks"]
    assert stack["torso.1.weight"][0, :, :2].all()
    assert not stack["torso.1.weight"][0, :, 2:].any()
    assert not stack["heads.0.output.weight"][0, 2:].any()


def test_a_student_that_diverges_is_named_and_no_student_takes_the_step():
    networks = make_networks("q_values")
    distiller = SeveralDistiller(networks, **settings(make_loss("q_mse", "q_values")))
    with torch.no_grad():
        networks[1].heads[0].output.bias[0] = torch.inf
    before = [weight.clone() for network in networks for weight in network.parameters()]
    with pytest.raises(UpdateDivergedError, match=r"^Update 0 of student 2 of 5 diverged: loss inf, gradient norm"):
        distiller.update(draw(["q_values"], 3), 0)
    after = [weight for network in networks for weight in network.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_going_on_from_a_saved_state_is_bit_equal_to_not_stopping():
    given, batch = settings(make_loss("q_mse", "q_values")), draw(["q_values"], 3)
    networks, others = make_networks("q_values"), make_networks("q_values")
    first, second = SeveralDistiller(networks, **given), SeveralDistiller(others, **given)
    for update in range(4):
        first.update(batch, update)
    state = copy.deepcopy(first.state_dict())
    first.update(batch, 4)
    second.load_state_dict(state)
    second.update(batch, 4)
    for network, other in zip(networks, others, strict=True):
        assert all(map(torch.equal, network.parameters(), other.parameters()))


@pytest.mark.parametrize(
    ("name", "layer_norm", "can"), [("mlp:8x8:4", False, True), ("mlp:8", True, False), ("conv:4-4:8", False, False)]
)
def test_only_networks_of_vectors_without_a_norm_can_be_stacked(name, layer_norm, can):
    shape = (3, 36, 36) if name.startswith("conv") else (7,)
    architecture = parse_architecture(name, layer_norm=layer_norm)
    assert can_be_stacked(PolicyNetwork(architecture, shape, {"": OutputLayer.choice(2)})) == can
