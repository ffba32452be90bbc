"""What the layers of a policy are planned for, so that a refusal names the option that asked for it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Purpose:
    """What a plan is made for, as messages of what cannot be planned name it.

    Attributes:
        what: is not written for it.
        instead: what its user may do, as the beginning of a sentence.
    """

    what: str
    instead: str


FOR_C = Purpose("C", "Export it as onnx")
FOR_INT8_C = Purpose("C of precision int8", "Use --precision float32")
FOR_TUNING = Purpose("--quantization-aware", "Leave it out")
