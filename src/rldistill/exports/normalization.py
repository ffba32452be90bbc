"""The factors on the numbers that a policy sees, before its first layer, in the order of the observation."""

from rldistill.policies import TorchPolicy


def factors(policy: TorchPolicy) -> list[float]:
    """Return the factor on each number that a policy sees, `[P]`; where statistics are applied, behind these."""
    spec, architecture = policy.spec, policy.spec.architecture
    if architecture is None or architecture.kind != "combined":
        return [spec.input_scale if policy.normalization is None else 1.0] * spec.num_observed
    found: list[float] = []
    for part in spec.observation_parts:
        is_image = part.is_image or (architecture.float_images and len(part.shape) == 3)
        found += [spec.input_scale if is_image else 1.0] * part.size
    # What is appended behind the parts goes in as it is.
    return found + [1.0] * (spec.num_observed - len(found))
