"""All formats of exports; another is a module with an `ExportFormat`, and its name here and in `options/export.py`."""

from collections.abc import Callable, Mapping

from rldistill.errors import RldistillError
from rldistill.exports.c_format import C
from rldistill.exports.formats import ExportFormat
from rldistill.exports.hub_format import HUB_FOLDER
from rldistill.exports.onnx_format import ONNX
from rldistill.exports.rsl_rl_format import RSL_RL
from rldistill.exports.sb3_format import SB3
from rldistill.exports.states import state_parts
from rldistill.exports.torch_formats import TORCH_EXPORT, TORCHSCRIPT
from rldistill.networks import ModuleNetwork
from rldistill.policies import TorchPolicy

FORMATS: Mapping[str, ExportFormat] = {
    own.name: own for own in (ONNX, C, TORCHSCRIPT, TORCH_EXPORT, SB3, RSL_RL, HUB_FOLDER)
}
"""Where several have files of one ending, the first is meant unless `--to` names another."""


def check_form(policy: TorchPolicy, chosen: ExportFormat) -> None:
    """Check that a format can hold a network of this form, and its actions.

    Raises:
        RldistillError: it cannot; says which formats can.
    """
    remembers = bool(state_parts(policy))  # refuses a module's, which no format keeps
    if isinstance(policy.network, ModuleNetwork) and chosen.needs_layers:
        raise RldistillError(
            f"--to {chosen.name}: policy {policy.name!r} is a module of its maker's own ({policy.spec.module}), "
            f"without a description of its layers. These need none: {_options(lambda own: not own.needs_layers)}."
        )
    if remembers and not chosen.keeps_state:
        raise RldistillError(
            f"--to {chosen.name}: policy {policy.name!r} remembers ({policy.spec.network_description}), and such files "
            f"keep no state. These do: {_options(lambda own: own.keeps_state)}."
        )
    layout = policy.tasks[0].fingerprint.action_layout
    if chosen.needs_bounds and layout.is_continuous and not layout.is_bounded:
        raise RldistillError(
            f"--to {chosen.name}: policy {policy.name!r} has actions without bounds, and such files need finite ones. "
            f"These do not: {_options(lambda own: not own.needs_bounds)}."
        )


def _options(may: Callable[[ExportFormat], bool]) -> str:
    return ", ".join(f"--to {own.name}" for own in FORMATS.values() if may(own))
