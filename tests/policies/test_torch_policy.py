"""A policy answers the same whatever stands beside an observation in its batch; what it acts; what it refuses."""

import numpy as np
import pytest
import torch
from torch import nn

from rldistill.errors import MismatchError
from rldistill.networks import Architecture, PolicyNetwork
from rldistill.networks.torsos import ACTIVATIONS
from rldistill.policies import HeadSpec, RandomPolicy, TorchPolicy, choose_actions, load_policy
from rldistill.policies.padded import ROWS_PER_BATCH, run_padded
from rldistill.rollout.threads import use_threads
from tests.kit.recurrent import gru_policy
from tests.kit.small_policies import box_task, image_task, small_policy, vector_task


def frames(num_rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_rows, 4, 84, 84), dtype=torch.uint8, generator=generator)


def vectors(num_rows, seed=0):
    return torch.randn(num_rows, 4, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def pong_like():
    return small_policy(image_task(), network="net3")


@pytest.mark.parametrize("network", ["net3", "dqn"])
@pytest.mark.parametrize("num_rows", [1, 7, 37])
def test_outputs_do_not_depend_on_the_batch_they_are_computed_in(network, num_rows):
    policy = small_policy(image_task(), network=network, layer_norm=network == "dqn")
    observations = frames(50)
    whole = policy(observations)[0]
    part = policy(observations[5 : 5 + num_rows])[0]
    assert torch.equal(part.q_values, whole.q_values[5 : 5 + num_rows])
    assert torch.equal(part.features, whole.features[5 : 5 + num_rows])


@pytest.mark.parametrize("num_rows", [1, 7, 37])
def test_outputs_of_an_mlp_do_not_depend_on_the_batch_either(num_rows):
    policy = small_policy(network=Architecture("x", "mlp", (64, 64), value_head=True))
    whole, part = policy(vectors(50))[0], policy(vectors(50)[9 : 9 + num_rows])[0]
    assert torch.equal(part.q_values, whole.q_values[9 : 9 + num_rows])
    assert torch.equal(part.value, whole.value[9 : 9 + num_rows])


@pytest.mark.parametrize("num_rows", [17, 64, 1030])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("task", [vector_task(num_inputs=17), box_task(num_actions=3, num_inputs=5)])
def test_several_batches_at_once_give_what_one_after_the_other_gives(task, activation, num_rows):
    kind = "gaussian" if task.fingerprint.action_layout.is_continuous else "logits"
    sizes = Architecture("x", "mlp", (64, 7), activation=activation, layer_norm=True, value_head=True)
    policy = small_policy(task, network=sizes, output_kind=kind)
    observations = torch.randn(
        num_rows, *task.fingerprint.observation_shape, generator=torch.Generator().manual_seed(0)
    )
    together = policy(observations)[0]
    for first in range(0, num_rows, 16):
        batch = policy(observations[first : first + 16])[0]
        assert torch.equal(batch.raw, together.raw[first : first + 16])
        assert torch.equal(batch.value, together.value[first : first + 16])
        assert torch.equal(batch.features, together.features[first : first + 16])


def test_outputs_do_not_depend_on_their_neighbours(pong_like):
    mine, others = frames(1, seed=1), frames(15, seed=2)
    alone = pong_like(mine)[0].q_values
    beside_noise = pong_like(torch.cat([others, mine]))[0].q_values[-1:]
    beside_black = pong_like(torch.cat([mine, torch.zeros_like(others)]))[0].q_values[:1]
    assert torch.equal(alone, beside_noise)
    assert torch.equal(alone, beside_black)


def test_every_forward_pass_has_the_same_number_of_rows(pong_like, monkeypatch):
    sizes = []
    forward = PolicyNetwork.forward
    monkeypatch.setattr(
        PolicyNetwork, "forward", lambda self, x, *others: sizes.append(len(x)) or forward(self, x, *others)
    )
    for num_rows in (1, ROWS_PER_BATCH["cpu"], 2 * ROWS_PER_BATCH["cpu"] + 1):
        pong_like(frames(num_rows))
    assert sizes == [16] * 5
    assert min(ROWS_PER_BATCH.values()) >= 8  # below, the last bits differ


def test_one_observation_to_act_on_is_computed_alone(pong_like, monkeypatch):
    observations = frames(40)
    outputs, _ = pong_like(observations)
    sizes = []
    forward = PolicyNetwork.forward
    monkeypatch.setattr(
        PolicyNetwork, "forward", lambda self, x, *others: sizes.append(len(x)) or forward(self, x, *others)
    )
    one, _ = pong_like.act(observations[:1])
    many, _ = pong_like.act(observations)
    assert sizes == [1, 16, 16, 16]
    np.testing.assert_array_equal(many, outputs.q_values.argmax(dim=1))
    np.testing.assert_array_equal(one, many[:1])


def test_no_rows_give_no_outputs(pong_like):
    output, _ = pong_like(frames(0))
    assert output.q_values.shape == (0, 6)
    actions, _ = pong_like.act(frames(0))
    assert actions.shape == (0,)


def test_arrays_and_tensors_give_the_same_and_stay_untouched(pong_like):
    observations = frames(3)
    kept = observations.clone()
    from_array = pong_like(observations.numpy())[0].q_values
    assert torch.equal(from_array, pong_like(observations)[0].q_values)
    assert torch.equal(observations, kept)


def test_rows_of_a_larger_array_need_not_be_contiguous(pong_like):
    observations = frames(8)
    assert torch.equal(pong_like(observations[::2])[0].q_values, pong_like(observations)[0].q_values[::2])


# Bytes behind a multiple of 64: where numpy's views and slices may lie.
OFFSETS = (0, 4, 8, 12, 60)


def at_offset(num_bytes, rows):
    """Return rows of float32 with the same numbers, in memory that begins `num_bytes` behind a multiple of 64."""
    memory = torch.empty(rows.numel() + 32)
    behind = (-memory.data_ptr() % 64 + num_bytes) // 4
    moved = memory[behind : behind + rows.numel()].view(rows.shape)
    moved.copy_(rows)
    assert moved.data_ptr() % 64 == num_bytes
    return moved


@pytest.mark.parametrize("num_inputs", [3, 4, 97])
@pytest.mark.parametrize("num_rows", [1, 3, 16, 20])
def test_outputs_do_not_depend_on_where_observations_lie_in_memory(num_inputs, num_rows):
    policy = small_policy(vector_task(num_inputs=num_inputs))
    rows = torch.randn(num_rows, num_inputs, generator=torch.Generator().manual_seed(3))
    expected = policy(rows)[0].raw
    every_second = torch.zeros(2 * num_rows, num_inputs)
    every_second[::2] = rows
    for moved in (*(at_offset(offset, rows) for offset in OFFSETS), rows.T.contiguous().T, every_second[::2]):
        assert torch.equal(policy(moved)[0].raw, expected)
        assert torch.equal(policy(moved.numpy())[0].raw, expected)


def test_outputs_do_not_depend_on_how_images_lie_in_memory(pong_like):
    images = frames(3)
    turned = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(pong_like(turned)[0].q_values, pong_like(images)[0].q_values)
    assert torch.equal(pong_like(turned.numpy())[0].q_values, pong_like(images)[0].q_values)


@pytest.mark.parametrize("num_inputs", [4, 5, 97])
def test_outputs_do_not_depend_on_the_place_in_the_batch(num_inputs):
    policy = small_policy(vector_task(num_inputs=num_inputs), network="mlp:7x6")
    row = torch.randn(1, num_inputs, generator=torch.Generator().manual_seed(3))
    raw = policy(row.expand(37, num_inputs))[0].raw
    assert torch.equal(raw, raw[:1].expand_as(raw))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_outputs_do_not_depend_on_the_place_in_the_batch_whatever_the_activation(activation):
    # Odd widths: vector instructions leave numbers over.
    policy = small_policy(network=Architecture("x", "mlp", (37, 7), head_hidden=(19,), activation=activation))
    rows = 3 * torch.randn(320, 4, generator=torch.Generator().manual_seed(3))
    apart = torch.cat([policy(batch)[0].raw for batch in rows.split(16)])
    turned = torch.cat([policy(batch.flip(0))[0].raw.flip(0) for batch in rows.split(16)])
    assert torch.equal(apart, turned)
    assert torch.equal(apart, policy(rows)[0].raw)


def test_outputs_of_many_wide_rows_do_not_depend_on_the_threads_that_compute_them():
    policy = small_policy(network=Architecture("x", "mlp", (1001,), activation="mish"))
    rows = 3 * torch.randn(1024, 4, generator=torch.Generator().manual_seed(3))
    with use_threads(3):
        features, turned = (policy(batch)[0].features for batch in (rows, rows.flip(0)))
    assert torch.equal(turned.flip(0), features)


@pytest.mark.parametrize("network", ["gru:7", "lstm:7", "mlp:5+gru:3"])
def test_what_is_remembered_does_not_depend_on_the_place_in_the_batch(network):
    policy = small_policy(network=network)
    state = turned = policy.initial_state(320)
    for rows in 3 * torch.randn(5, 320, 4, generator=torch.Generator().manual_seed(3)):
        output, state = policy(rows, state)
        other, turned = policy(rows.flip(0), turned)
        for part, mirrored in zip((output.raw, *state), (other.raw, *turned), strict=True):
            assert torch.equal(mirrored.flip(0), part)


def test_a_network_gets_rows_in_memory_of_one_layout(monkeypatch):
    seen = []
    forward = PolicyNetwork.forward
    monkeypatch.setattr(PolicyNetwork, "forward", lambda self, x, *others: seen.append(x) or forward(self, x, *others))
    policy, rows = small_policy(), vectors(20)
    for moved in (*(at_offset(offset, rows) for offset in OFFSETS), rows.T.contiguous().T, rows[:3], rows[:0]):
        policy(moved)
    assert len(seen) == 6 + 2
    for batch in seen:
        assert (batch.data_ptr() % 64, batch.is_contiguous(), len(batch) % 16, batch.shape[1]) == (0, True, 0, 4)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 15, 16])
def test_a_small_batch_holds_one_row_in_its_first_place_and_zeros(batch_size):
    seen = []

    def forward(batch):
        seen.append(batch.clone())
        return (batch[:, :1],)

    rows = vectors(5)
    (column,) = run_padded(rows, batch_size, forward)
    assert torch.equal(column, rows[:, :1])
    per_call = 5 if batch_size == 16 else 1
    for index, batch in enumerate(seen):
        assert torch.equal(batch[:per_call], rows[index * per_call :][:per_call])
        assert tuple(batch.shape) == (batch_size, 4)
        assert not batch[per_call:].any()


def test_weights_of_a_file_lie_in_memory_of_their_own(tmp_path):
    policy = small_policy(network="mlp:3x5")
    policy.save(tmp_path / "p.safetensors")
    loaded = load_policy(tmp_path / "p.safetensors")
    assert {weight.data_ptr() % 64 for weight in loaded.network.parameters()} == {0}
    assert torch.equal(loaded(vectors(20))[0].raw, policy(vectors(20))[0].raw)


def test_outputs_carry_no_gradient_and_the_networks_mode_is_left_as_it_was():
    policy = small_policy()
    for is_training in (True, False):
        policy.network.train(is_training)
        assert not policy(vectors(2))[0].q_values.requires_grad
        assert policy.network.training is is_training


@pytest.mark.parametrize("kind", ["q_values", "logits"])
def test_outputs_have_the_kind_and_layout_of_the_policy(kind):
    output, state = small_policy(output_kind=kind)(vectors(2))
    assert (output.kind, state) == (kind, None)
    assert output.action_layout.sizes == (3,)
    assert output.raw is getattr(output, kind)


def test_state_is_passed_through_by_policies_without_memory():
    policy = small_policy()
    assert policy.initial_state(3) is None
    assert policy(vectors(2), "mine")[1] == "mine"
    assert policy.act(vectors(2), state="mine")[1] == "mine"


def test_greedy_policies_take_the_best_action():
    policy = small_policy()
    actions, _ = policy.act(vectors(20))
    np.testing.assert_array_equal(actions, policy(vectors(20))[0].q_values.argmax(dim=1))
    assert actions.dtype == np.int64


def test_sampling_policies_need_a_generator_and_draw_from_it():
    policy = small_policy(output_kind="logits", behaviour="sample")
    with pytest.raises(ValueError, match=r"^acting with behaviour 'sample' of logits and ε 0\.0 draws random numbers"):
        policy.act(vectors(20))
    actions, _ = policy.act(vectors(20), rng=np.random.default_rng(0))
    output, _ = policy(vectors(20))
    np.testing.assert_array_equal(actions, choose_actions(output, "sample", rng=np.random.default_rng(0)))


@pytest.mark.parametrize("shape", [(2, 5), (4,), (2, 4, 1), ()])
def test_observations_of_another_shape_are_refused(shape):
    with pytest.raises(MismatchError) as caught:
        small_policy()(torch.zeros(shape))
    assert str(caught.value) == f"Policy 'mlp:8' takes observations [B, 4], got {list(shape)}."


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bool])
def test_a_policy_that_takes_bytes_refuses_observations_that_somebody_scaled(pong_like, dtype):
    with pytest.raises(MismatchError) as caught:
        pong_like(torch.zeros(2, 4, 84, 84, dtype=dtype))
    assert str(caught.value) == (
        f"Policy 'net3' takes uint8 observations, 0 to 255, and scales them itself; got {str(dtype)[6:]}. "
        "They were probably scaled before. Pass them as the environment gives them."
    )


def test_bytes_may_come_as_other_integers(pong_like):
    observations = frames(2)
    assert torch.equal(pong_like(observations.long())[0].q_values, pong_like(observations)[0].q_values)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int32, torch.uint8])
def test_a_policy_that_takes_floats_takes_any_numbers(dtype):
    observations = torch.tensor([[0, 1, 2, 3]])
    expected = small_policy()(observations.float())[0].q_values
    assert torch.equal(small_policy()(observations.to(dtype))[0].q_values, expected)


def test_heads_are_chosen_by_task_name_and_share_their_weights():
    policy = small_policy(vector_task(3, name="a"), vector_task(5, name="b"))
    other = policy.for_task("b")
    assert [task.name for task in policy.tasks] == ["a", "b"]
    assert [task.name for task in other.tasks] == ["b", "a"]
    assert policy(vectors(2))[0].q_values.shape == (2, 3)
    assert other(vectors(2))[0].q_values.shape == (2, 5)
    assert other.network is policy.network
    assert other.hash == policy.hash


def test_a_task_without_a_head_is_refused():
    policy = small_policy(vector_task(3, name="a"), vector_task(5, name="b"))
    with pytest.raises(MismatchError) as caught:
        policy.for_task("c")
    assert str(caught.value) == "Policy 'mlp:8' has no head for 'c', only for a, b."


# One head alone


@pytest.fixture(scope="module")
def three_heads():
    heads = (vector_task(3, name="a"), vector_task(5, name="b"), vector_task(2, name="c"))
    architecture = Architecture("x", "mlp", (8,), head_hidden=(4,), value_head=True)
    policy = small_policy(*heads, network=architecture, output_kind="logits", behaviour="sample", name="three")
    return policy.with_provenance({"verb": "distill", "teachers": [{"task": "b", "hash": "123"}]})


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_one_head_alone_answers_as_in_company(three_heads, name):
    alone, together = three_heads.single_task(name), three_heads.for_task(name)
    assert [task.name for task in alone.tasks] == [name]
    mine, theirs = alone(vectors(5))[0], together(vectors(5))[0]
    assert torch.equal(mine.logits, theirs.logits)
    assert torch.equal(mine.value, theirs.value)
    assert (alone.name, alone.behaviour, alone.output_kind) == ("three", "sample", "logits")


def test_one_head_alone_is_a_policy_of_its_own_with_the_torso_and_no_other_head(three_heads):
    alone = three_heads.single_task("b")
    assert alone.hash not in (three_heads.hash, three_heads.single_task("a").hash)
    assert list(alone.network.state_dict()) == [
        name for name in three_heads.network.state_dict() if not name.startswith(("heads.1", "heads.2"))
    ]
    assert alone.network.head_names == ("b",)
    before = three_heads.hash
    with torch.no_grad():
        for parameter in alone.network.parameters():
            parameter.add_(1.0)
    assert three_heads.hash == before, "no weights are shared"


def test_one_head_alone_says_where_it_came_from(three_heads):
    assert three_heads.single_task("b").spec.provenance == {
        "verb": "distill",
        "teachers": [{"task": "b", "hash": "123"}],
        "single_task_of": {"name": "three", "hash": three_heads.hash, "tasks": ["a", "b", "c"]},
    }


def test_one_head_alone_acts_as_that_head_did(three_heads):
    heads = [
        HeadSpec(task, behaviour) for task, behaviour in zip(three_heads.tasks, (None, "greedy", None), strict=True)
    ]
    policy = three_heads.with_spec(heads=tuple(heads))
    assert [policy.single_task(name).behaviour for name in "abc"] == ["sample", "greedy", "sample"]


def test_the_only_head_is_alone_already():
    policy = small_policy()
    assert policy.single_task("made-up").hash == policy.hash
    with pytest.raises(MismatchError, match=r"^Policy 'mlp:8' has no head for 'c', only for made-up\.$"):
        policy.single_task("c")


def test_one_head_alone_comes_back_from_its_file(three_heads, tmp_path):
    alone = three_heads.with_spec(weights_dtype="float16").single_task("c")
    alone.save(tmp_path / "c.safetensors")
    loaded = load_policy(tmp_path / "c.safetensors")
    assert loaded.hash == alone.hash
    assert loaded.spec == alone.spec


def test_a_convolution_keeps_its_layout_when_its_head_is_taken_out():
    policy = small_policy(image_task(), image_task(4, name="atari:breakout"), network="conv:4:4")
    alone = policy.single_task("atari:breakout")
    assert alone.network.torso[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(alone(frames(3))[0].q_values, policy.for_task("atari:breakout")(frames(3))[0].q_values)


def test_bytes_are_scaled_to_one_and_floats_are_taken_as_they_are():
    assert small_policy(image_task()).spec.input_scale == 1 / 255
    assert small_policy(vector_task()).spec.input_scale == 1.0


# Random play


def test_random_play_is_uniform_and_needs_a_generator():
    policy = RandomPolicy(vector_task(4))
    actions, _ = policy.act(np.zeros((40_000, 4)), rng=np.random.default_rng(0))
    # A count is 10,000 ± 87 (one standard deviation).
    assert np.abs(np.bincount(actions) - 10_000).max() < 350
    with pytest.raises(ValueError, match="pass rng"):
        policy.act(np.zeros((2, 4)))


def test_random_play_gives_equal_logits():
    output, _ = RandomPolicy(vector_task(4))(np.zeros((2, 4)))
    assert torch.equal(output.logits, torch.zeros(2, 4))


def test_random_play_is_the_same_policy_wherever_the_actions_are_the_same():
    assert RandomPolicy(vector_task(4, name="a")).hash == RandomPolicy(image_task(4)).hash
    assert RandomPolicy(vector_task(4)).hash != RandomPolicy(vector_task(5)).hash


def test_random_play_has_nothing_to_save(tmp_path):
    with pytest.raises(TypeError, match=r"^random play has no weights to save$"):
        RandomPolicy(vector_task()).save(tmp_path / "p.safetensors")


def test_a_memory_is_given_on_row_by_row_whatever_the_batch():
    policy, windows = gru_policy(), rows_of(5, 20, 2)
    together, state = [], policy.initial_state(20)
    for observations in windows:
        output, state = policy(observations, state)
        together.append(output.raw)
    alone, state = [], policy.initial_state(1)
    for observations in windows:
        output, state = policy(observations[7:8], state)
        alone.append(output.raw[0])
    assert torch.equal(torch.stack(together)[:, 7], torch.stack(alone))
    assert not torch.equal(policy(windows[1], policy.initial_state(20))[0].raw, together[1])


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ((torch.zeros(3, 4),), "[[3, 4]]"),
        ((torch.zeros(1, 4), torch.zeros(1, 4)), "[[1, 4], [1, 4]]"),
        ((), "[]"),
        (torch.zeros(1, 4), "a Tensor"),
        ((np.zeros((1, 4), np.float32),), "['a ndarray']"),
    ],
)
def test_a_state_of_other_environments_is_refused(state, shown):
    policy = small_policy(network="gru:4")
    for call in (policy, lambda row, state: policy.act(row, state=state)):
        with pytest.raises(MismatchError) as caught:
            call(np.ones((1, 4), np.float32), state)
        assert str(caught.value) == (
            f"Policy 'gru:4' got 1 observations and the state {shown}, expected a tuple of tensors [[1, 4]]. Give what "
            "it returned for the same environments, or initial_state(1)."
        )


def test_acting_gives_the_memory_on_too():
    policy, windows = gru_policy(), rows_of(2, 3, 2)
    _, state = policy.act(windows[0], state=policy.initial_state(3))
    actions, _ = policy.act(windows[1], state=state)
    output, expected = policy(windows[1], policy(windows[0], policy.initial_state(3))[1])
    np.testing.assert_array_equal(actions, output.raw.argmax(dim=1))
    assert state[0].shape == expected[0].shape == (3, 8)


class Failing(nn.Linear):
    def forward(self, rows):
        raise RuntimeError("out of order")


def test_a_module_that_fails_stays_in_training():
    policy = TorchPolicy.from_module(Failing(4, 3), vector_task(), output_kind="logits")
    with pytest.raises(MismatchError, match="out of order"):
        policy(rows_of(2, 4))
    assert policy.network.training


def rows_of(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
