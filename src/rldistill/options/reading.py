"""How the files of other libraries are read where they do not say it themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from rldistill.limits import is_file
from rldistill.options.declaration import Above, Options, option_types

WITHOUT_NORMALIZER = "none"
"""In the place of a normalizer's file: the policy sees observations as they are."""


@dataclass(frozen=True, kw_only=True)
class Reading(Options):
    """How to read policy files of other libraries, where they do not say it themselves."""

    help_title: ClassVar[str] = "policy file"
    trust: bool = False
    """Run the code of files that are programs (TorchScript, torch.export), and run ONNX files without limits of time
    and memory."""
    outputs: str | None = None
    """What the outputs are, if the file does not say it: q_values, logits, gaussian or actions. If there are several
    outputs also which, such as logits=policy or gaussian=mu,log_std. actions=rescale: outputs of -1 and 1 stand for the
    bounds of the action space. actions=beta, for rsl_rl: the outputs are parameters of Beta distributions, and the
    policy acts by their means. actions=tanh, for a plain state dict: its outputs pass through tanh, whose -1 and 1
    stand for the bounds."""
    input_scale: Annotated[float, Above(0)] | None = None
    """Factor on observations of bytes for a program that takes floats: 1 if the program scales them itself, else
    1/255. For a checkpoint with convolutions: 1/255, unless you say another."""
    activation: str | None = None
    """Activation of a checkpoint's hidden layers: elu, relu, tanh, … Default: elu for rsl_rl, skrl and rl_games; for
    CleanRL, that of its script."""
    normalizer: str | None = None
    """File with running statistics of the observations: vecnormalize.pkl, or an .npz or .safetensors with mean and var;
    none: observations are not normalised. Default: the file beside a Stable-Baselines3 zip, or what the checkpoint
    holds."""
    behaviour: Literal["greedy", "sample"] | None = None
    """How the policy acts: greedy, or sample (from its distribution). Default: what its file says; a Gaussian is
    sampled while its play is recorded."""

    def as_reading(self) -> "Reading":
        """Return the words of this group alone: of a verb's record that extends it."""
        return Reading(**{name: getattr(self, name) for name in option_types(Reading)})

    def to_dict(self) -> dict[str, Any]:
        """Return what is said, to be recorded; trust is not: it is given anew each time."""
        said = {name: getattr(self, name) for name in option_types(Reading)}
        return {name: value for name, value in said.items() if value is not None and name != "trust"}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Reading":
        """Read what `to_dict` wrote; from a stranger's file, which may say anything, only what can be meant."""
        kinds = {"outputs": str, "input_scale": float, "activation": str, "normalizer": str, "behaviour": str}
        said = {name: data[name] for name, kind in kinds.items() if isinstance(data.get(name), kind)}
        if said.get("behaviour") not in ("greedy", "sample"):
            said.pop("behaviour", None)
        # Opening a pipe or a device might never end.
        if said.get("normalizer", WITHOUT_NORMALIZER) != WITHOUT_NORMALIZER and not is_file(said["normalizer"]):
            del said["normalizer"]
        return Reading(**said)
