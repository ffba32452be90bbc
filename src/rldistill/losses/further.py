"""What a student may learn of its teacher besides what it does: the teacher's features and its state values.

    feature_mse   Σ (W h_S + b − h_T)², of which `FeatureRegression` learns W and b
    value_mse     (V_S − V_T)²

Both return one value per row, `[...]`, in float32; the teacher's tensors never carry gradient. They are added to the
loss of the outputs, times a weight.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from rldistill.types import check_shapes


def feature_mse(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Measure the squared distance between projected features of the student and those of the teacher.

    Σ (f_S − f_T)², summed over the teacher's features, not averaged.

    Args:
        student_features: `[..., F]`, projected to the teacher's number of features.
        teacher_features: `[..., F]`, the teacher's layer before its output.

    Returns:
        `[...]`, squared units of the teacher's features, non-negative.

    Source: Parisotto et al. 2015, "Actor-Mimic", feature regression; they weigh it with 0.01.
    """
    check_shapes("... F", student_features=student_features, teacher_features=teacher_features)
    return (student_features.float() - teacher_features.detach().float()).square().sum(dim=-1)


def value_mse(student_values: Tensor, teacher_values: Tensor) -> Tensor:
    """Measure the squared distance between the state values of student and teacher.

    Args:
        student_values: `[...]`, what the student expects to be paid from a state on.
        teacher_values: `[...]`, the teacher's, in whatever unit of reward it was trained with.

    Returns:
        `[...]`, squared returns, non-negative.
    """
    check_shapes("...", student_values=student_values, teacher_values=teacher_values)
    return (student_values.float() - teacher_values.detach().float()).square()


class FeatureRegression(nn.Module):
    """`feature_mse` through a linear layer that is trained with the student and thrown away after it.

    The student's features thus need only hold what the teacher's do, in any number and any order.

    Args:
        num_student: features of the student.
        num_teacher: features of the teacher.
        generator: draws the first weights, uniform within ± 1 ÷ √`num_student`.
    """

    def __init__(self, num_student: int, num_teacher: int, *, generator: torch.Generator) -> None:
        super().__init__()
        bound = num_student**-0.5
        self.weight = nn.Parameter(torch.empty(num_teacher, num_student).uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(torch.zeros(num_teacher))

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Return one loss per row, `[...]`."""
        return feature_mse(functional.linear(student_features.float(), self.weight, self.bias), teacher_features)


class FurtherLoss(nn.Module):
    """What is added to the loss of a head's outputs.

    Args:
        value_weight: of `value_mse`; 0: values are not learned.
        feature_weight: of the regression.
        regression: of features; None: they are not learned.
    """

    def __init__(
        self, *, value_weight: float = 0.0, feature_weight: float = 0.0, regression: FeatureRegression | None = None
    ) -> None:
        super().__init__()
        self.regression = regression
        self._value_weight, self._feature_weight = value_weight, feature_weight

    def forward(self, features: Tensor | None, value: Tensor | None, targets: Mapping[str, Tensor]) -> Tensor:
        """Return one loss per row, `[N]`.

        Args:
            features: `[N, F]`, the student's, where they are learned.
            value: `[N]`, the student's, where they are learned.
            targets: the teacher's, by name.
        """
        losses = list[Tensor]()
        if self._value_weight:
            assert value is not None, "the student was made with a value head"
            losses.append(self._value_weight * value_mse(value, targets["value"]))
        if self.regression is not None:
            assert features is not None, "modules are refused"
            losses.append(self._feature_weight * self.regression(features, targets["features"]))
        return torch.stack(losses).sum(dim=0)
