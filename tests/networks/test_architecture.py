"""Networks by name: presets, free sizes by a short text, and what is refused."""

import pytest

from rldistill.errors import UsageError
from rldistill.networks import Architecture, parse_architecture


@pytest.mark.parametrize(
    ("name", "channels", "hidden"),
    [
        ("dqn", (32, 64, 64), (512,)),
        ("net1", (16, 32, 32), (256,)),
        ("net2", (16, 16, 16), (128,)),
        ("net3", (16, 16, 16), (64,)),
        ("multitask3", (32, 64, 64), (512,)),
        ("multitask10", (64, 64, 64), (1500,)),
    ],
)
def test_presets_have_the_papers_layers(name, channels, hidden):
    head_hidden = (128,) if name.startswith("multitask") else ()
    assert parse_architecture(name) == Architecture(
        name, "conv", hidden, channels, kernel_sizes=(8, 4, 3), strides=(4, 2, 1), head_hidden=head_hidden
    )


@pytest.mark.parametrize(
    ("text", "hidden", "head_hidden"),
    [("mlp:64x64:32", (64, 64), (32,)), ("conv:8-8-8:32:16x4", (32,), (16, 4)), ("mlp:8", (8,), ())],
)
def test_a_last_part_gives_each_head_hidden_layers(text, hidden, head_hidden):
    architecture = parse_architecture(text)
    assert (architecture.hidden, architecture.head_hidden) == (hidden, head_hidden)


@pytest.mark.parametrize(
    ("text", "hidden"), [("mlp:64x64", (64, 64)), ("mlp:7", (7,)), ("mlp:400x300x20", (400, 300, 20))]
)
def test_an_mlp_is_named_by_its_widths(text, hidden):
    assert parse_architecture(text) == Architecture(text, "mlp", hidden)


@pytest.mark.parametrize(
    ("text", "channels", "kernel_sizes", "strides", "hidden"),
    [
        ("conv:8-8-8:32", (8, 8, 8), (8, 4, 3), (4, 2, 1), (32,)),
        ("conv:16:64x32", (16,), (8,), (4,), (64, 32)),
        ("conv:1-2-3-4:5", (1, 2, 3, 4), (8, 4, 3, 3), (4, 2, 1, 1), (5,)),
    ],
)
def test_a_free_conv_uses_the_kernels_and_strides_of_dqn(text, channels, kernel_sizes, strides, hidden):
    assert parse_architecture(text) == Architecture(text, "conv", hidden, channels, kernel_sizes, strides)


@pytest.mark.parametrize("text", ["net3", "mlp:8", "conv:4-4:8"])
def test_layer_norm_is_asked_for_separately(text):
    assert not parse_architecture(text).layer_norm
    assert parse_architecture(text, layer_norm=True).layer_norm


@pytest.mark.parametrize("text", ["net3", "mlp:64x64", "conv:8-8:32"])
def test_plain_data_and_back(text):
    architecture = parse_architecture(text, layer_norm=True)
    assert Architecture.from_dict(architecture.to_dict()) == architecture


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("nte3", "net3"),
        ("net4", "net3"),
        ("DQN", "dqn"),
        ("Net3", "net3"),
        ("transformer", None),
        ("mpl:64", "mlp:64"),
        ("MLP:8x8", "mlp:8x8"),
        ("conf:8-8:32", "conv:8-8:32"),
        ("mlp:64-64", "mlp:64x64"),
        ("mlp:0", "mlp:64x64"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_preset(text, near):
    with pytest.raises(UsageError) as caught:
        parse_architecture(text)
    hint = f" Did you mean {near!r}?" if near else ""
    assert str(caught.value) == (
        f"Unknown network: got {text!r}, expected one of dqn, net1, net2, net3, multitask3, multitask10, or layers: "
        f"mlp:64x64, conv:8-8-8:32, combined:8-8-8:32:64.{hint}"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mlp",
        "mlp:",
        "mlp:0x64",
        "mlp:64x",
        "mlp:64-64",
        "mlp:64x64 ",
        "mlp:-1",
        "conv:8",
        "conv:8-0:32",
        "conv::32",
        "mlp:8:",
        "mlp:8:4:2",
        "conv:8:32:0",
    ],
)
def test_malformed_sizes_are_refused(text):
    with pytest.raises(UsageError, match=r"^Unknown network: got "):
        parse_architecture(text)


def test_channels_kernels_and_strides_must_be_as_many():
    with pytest.raises(UsageError) as caught:
        Architecture("x", "conv", (8,), channels=(4, 4), kernel_sizes=(3,), strides=(1, 1))
    assert str(caught.value) == (
        "Architecture 'x': got 2 channels, 1 kernel sizes and 2 strides, expected as many of each."
    )


@pytest.mark.parametrize("sizes", [{"hidden": (0,)}, {"hidden": (8,), "head_hidden": (-1,)}])
def test_sizes_must_be_positive(sizes):
    with pytest.raises(UsageError, match=r"^Architecture 'x': sizes must be positive\.$"):
        Architecture("x", "mlp", **sizes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "cnn"}, "Architecture 'x': kind must be conv or impala or mlp or combined, got 'cnn'."),
        (
            {"activation": "swish"},
            "Architecture 'x': activation must be relu or tanh or elu or leaky_relu or sigmoid or silu or gelu or selu "
            "or softplus or identity or mish or hardtanh or hardsigmoid or hardswish or softsign or celu or relu6, got "
            "'swish'.",
        ),
        ({"float_images": True}, "Architecture 'x': float_images is for observations of several parts."),
        ({"head_activation": "swish"}, "Architecture 'x': head_activation is unknown: 'swish'."),
    ],
)
def test_a_kind_or_activation_that_does_not_exist_is_refused(change, message):
    with pytest.raises(UsageError) as caught:
        Architecture(**{"name": "x", "kind": "mlp", "hidden": (8,)} | change)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["mlp:99999999999999999999", "mlp:64x1000001", "conv:8-8-8:9999999", "mlp:8:1000001"])
def test_a_layer_that_no_memory_holds_is_refused(text):
    with pytest.raises(UsageError, match=r"^network: got a layer of \d{7,20}, expected at most 1,000,000\.$"):
        parse_architecture(text)
