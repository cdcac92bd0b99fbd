# SPDX-License-Identifier: Apache-2.0
"""Temperature scaling: one number that fits a network's confidence to its accuracy (Guo et al., ICML 2017, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from weakseg_ros.errors import DataError
from weakseg_ros.measure.metrics import Calibration

COLDEST, HOTTEST = 0.05, 20.0
TOLERANCE = 1e-4
"""of the logarithm of the temperature"""


@dataclass(frozen=True)
class TemperatureFit:
    """The temperature and what it does to the points that it was fitted on; nll in nats per point, ece = calibration error."""

    temperature: float
    calibration_points: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float


def fit_temperature(logits: Tensor, class_id: Tensor) -> TemperatureFit:
    """The temperature T that minimises the mean negative log-likelihood of softmax(logits[:, 1:] / T).

    `logits` (P, K) and `class_id` (P,) in 1..K-1 of labelled points that the network was not trained on. The likelihood has
    one optimum in T, found by golden section within 0.05..20. Raises DataError without a point.
    """
    if not len(class_id):
        raise DataError("calibration: the validation scans have no labelled point; give scans with labels")
    scores, target = logits[:, 1:].double(), class_id.long() - 1  # (P, K-1), (P,)

    def nll(temperature: float) -> float:
        return F.cross_entropy(scores / temperature, target).item()

    temperature = math.exp(_golden_section(lambda log_t: nll(math.exp(log_t)), math.log(COLDEST), math.log(HOTTEST)))
    return TemperatureFit(
        temperature=temperature,
        calibration_points=len(target),
        nll_before=nll(1.0),
        nll_after=nll(temperature),
        ece_before=_calibration_error(scores, target),
        ece_after=_calibration_error(scores / temperature, target),
    )


def _calibration_error(scores: Tensor, target: Tensor) -> float:
    confidence, predicted = scores.softmax(dim=1).max(dim=1)
    calibration = Calibration()
    calibration.add(confidence.float().numpy(), (predicted == target).numpy())
    return float(calibration.ece)


def _golden_section(cost: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum has it, within TOLERANCE."""
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = cost(left), cost(right)
    while high - low > TOLERANCE:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = cost(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = cost(right)
    return (low + high) / 2.0
