"""The C that turns a last layer's numbers into outputs, and outputs into an action, as `OutputRows` and play do."""

import torch

from rldistill.exports.c.plan import Plan, PlannedLayer
from rldistill.exports.c.text import Definitions, function, loop, number
from rldistill.networks.output_layer import GSDE_EPSILON, LOG_STD_BOUNDS, SMOOTH_LOG_STD_BOUNDS
from rldistill.types import ActionLayout

_LARGEST = torch.finfo(torch.float32).max


def outputs_described(plan: Plan) -> str:
    """Return what the raw outputs are, for a comment."""
    output = plan.output
    if output.kind == "gaussian":
        return f"{output.layout.sizes[0]} means of a Gaussian, then as many logarithms of its standard deviation"
    return {"q_values": "a Q-value for each choice", "logits": "a logit for each choice", "actions": "the action"}[
        output.kind
    ]


def to_outputs(plan: Plan, definitions: Definitions) -> list[str]:
    """Return what is done in place to the numbers of the last layer, in `outputs`."""
    output, count = plan.output, plan.output.num_outputs
    if output.atoms is not None:
        support = definitions.constant("support", output.atoms.support())
        definitions.helpers["expectation"] = _expectation(output.atoms.count, support)
        # An expectation is written where its own scores, or earlier ones, are not needed any more.
        return loop("a", count, [f"outputs[a] = expectation(outputs + a * {output.atoms.count});"])
    if output.kind == "gaussian" and output.gaussian.mean_limit is not None:
        limit = number(float(output.gaussian.mean_limit))
        return loop("d", output.layout.sizes[0], [f"outputs[d] = {_clipped('outputs[d]', f'-{limit}', limit)};"])
    if output.is_beta:
        definitions.helpers["above_one"] = _ABOVE_ONE
        # A mean is written where its own α stood.
        parts = [
            f"const float {name} = above_one(outputs[{place}]);"
            for name, place in (("alpha", "d"), ("beta", f"{count} + d"))
        ]
        return loop("d", count, [*parts, "outputs[d] = 2.0f * alpha / (alpha + beta) - 1.0f;"])
    if output.kind == "actions" and output.squashes:
        return loop("d", count, [f"outputs[d] = {_squashed(output.layout, 'outputs[d]', definitions)};"])
    return []


def to_log_std(plan: Plan, feature: str, definitions: Definitions) -> list[str]:
    """Return what a Gaussian's log std, behind its means in `outputs`, is made of; `feature` is number `f` of these."""
    if plan.log_std is None:
        return []
    count = plan.output.layout.sizes[0]
    place = f"outputs[{count} + d]"
    if isinstance(plan.log_std, PlannedLayer):
        call = f"{plan.log_std.name}(features, outputs + {count});"
        if plan.output.gaussian.std == "state":
            low, high = map(number, LOG_STD_BOUNDS)
            return [call, *loop("d", count, [f"{place} = {_clipped(place, low, high)};"])]
        low, high = SMOOTH_LOG_STD_BOUNDS
        half, squashed = number(0.5 * (high - low)), definitions.activation("tanh", place)
        return [call, *loop("d", count, [f"{place} = {number(low)} + {half} * ({squashed} + 1.0f);"])]
    if plan.output.gaussian.std != "gsde":
        return loop("d", count, [f"{place} = {definitions.constant('log_std', plan.log_std)}[d];"])
    variance = definitions.constant("noise_variance", plan.log_std.exp().square())
    add = f"variance += {feature} * {feature} * {variance}[f][d];"
    body = ["float variance = 0.0f;", *loop("f", len(plan.log_std), [add])]
    return loop("d", count, [*body, f"{place} = 0.5f * logf(variance + {number(GSDE_EPSILON)});"])


def to_action(plan: Plan, definitions: Definitions) -> list[str]:
    """Return how `outputs` become the greedy `action`."""
    output, layout = plan.output, plan.output.layout
    if layout.kind == "box":
        value = "outputs[d]"
        if output.kind == "gaussian" and output.squashes:
            value = _squashed(layout, value, definitions)
        low, high = (f"{name}[d]" for name in _bounds(layout, definitions))
        return loop(
            "d", layout.sizes[0], [f"const float value = {value};", f"action[d] = {_clipped('value', low, high)};"]
        )
    if layout.kind == "multi_binary":
        return loop("d", layout.sizes[0], ["action[d] = outputs[d] > 0.0f ? 1.0f : 0.0f;"])
    definitions.helpers["best_of"] = function(
        "static float best_of(const float *scores, int count)",
        [
            "int best = 0;",
            *loop("a", "count", ["if (scores[a] > scores[best]) {", "    best = a;", "}"]),
            "return (float)best;",
        ],
        about="The number of the largest score, of the first of several.",
    )
    lines, first = list[str](), 0
    for place, size in enumerate(layout.sizes):
        scores = "outputs" if first == 0 else f"outputs + {first}"
        lines.append(f"action[{place}] = best_of({scores}, {size});")
        first += size
    return lines


def _bounds(layout: ActionLayout, definitions: Definitions) -> tuple[str, str]:
    low, high = (
        torch.tensor(side, dtype=torch.float64).clamp(-_LARGEST, _LARGEST).float() for side in (layout.low, layout.high)
    )
    return definitions.constant("action_low", low), definitions.constant("action_high", high)


def _squashed(layout: ActionLayout, value: str, definitions: Definitions) -> str:
    """Return a number brought from anywhere to between the bounds of dimension `d`."""
    low, high = (torch.tensor(side, dtype=torch.float64) for side in (layout.low, layout.high))
    half = definitions.constant("action_half_width", (0.5 * (high - low)).float())
    return f"{_bounds(layout, definitions)[0]}[d] + ({definitions.activation('tanh', value)} + 1.0f) * {half}[d]"


def _clipped(value: str, low: str, high: str) -> str:
    return f"{value} < {low} ? {low} : {value} > {high} ? {high} : {value}"


_ABOVE_ONE = function(
    "static float above_one(float x)",
    ["return 1.0f + (x > 0.0f ? x + logf(1.0f + expf(-x)) : logf(1.0f + expf(x)));"],
    about="1 + log(1 + exp(x)): a parameter of a Beta distribution with one peak.",
)


def _expectation(count: int, support: str) -> str:
    return function(
        "static float expectation(const float *scores)",
        [
            "float largest = scores[0], sum = 0.0f, weighted = 0.0f;",
            *loop("i", count, ["largest = scores[i] > largest ? scores[i] : largest;"]),
            *loop(
                "i",
                count,
                [
                    "const float share = expf(scores[i] - largest);",
                    "sum += share;",
                    f"weighted += share * {support}[i];",
                ],
            ),
            "return weighted / sum;",
        ],
        about="The mean of a distribution whose logits these are.",
    )
