# SPDX-License-Identifier: Apache-2.0
"""The settings of every method, free of torch: the manual of `weakseg train` is made of them.

The first sentence of a class is what the manual says of it. `was` is what a setting was called when the settings of all
methods lay in one `options`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError
from weakseg_ros.nets.settings import QueryHeadSettings

Alignment = Literal["kl", "reversed_kl", "js", "mse"]
Assignment = Literal["argmax", "gumbel"]
Reduction = Literal["mean_log", "log_sum"]
Distance = Literal["learned", "euclidean", "surface", "traverse"]


@dataclass(frozen=True)
class SupervisedSettings:
    """Sets the losses at labelled pixels; `gamma` 0, no `class_weights` and `lovasz_weight` 0 is plain cross-entropy."""

    focal_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the focal loss (0 to 100)."""
    lovasz_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the Lovász-Softmax loss (0 to 100)."""
    gamma: float = setting(2.0, 0.0, 10.0)
    """Sets the exponent of the focal loss (0 to 10); the larger it is, the less a pixel that is already right counts."""
    class_weights: bool = True
    """Gives rare classes a larger weight in the focal loss, by how often each class is labelled in the training data."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class ErdaSettings:
    """Sets ERDA; `entropy_weight` 1 with `alignment` kl, the paper's choice, is a cross-entropy between p and q."""

    weight: float = setting(0.1, 0.0, 100.0, was="erda_weight")
    """Sets the weight of the ERDA loss (0 to 100); the paper uses 0.1, and 0.01 on some backbones."""
    entropy_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the pseudo-labels' entropy within the ERDA loss (0 to 100), lambda in the paper."""
    alignment: Alignment = "kl"
    """Selects the distance between pseudo-label and prediction."""
    momentum: float = setting(0.999, 0.0, 1.0, was="erda_momentum")
    """Sets the share of a class prototype that is kept at each step (0 to 1)."""
    temperature: float = setting(1.0, 1e-3, 100.0, was="erda_temperature")
    """Sets the temperature that divides the cosines between feature and prototypes (0.001 to 100); the paper's 1 keeps the
    pseudo-labels soft."""
    prototype_start: Literal["zeros", "xavier"] = "zeros"
    """Selects the value of a prototype before its class is first seen."""
    official_reset: bool = False
    """Resets the prototypes of classes that a batch does not contain, as the released code does; the paper keeps them."""
    pseudo_points: Literal["auto", "unlabelled", "all"] = "auto"
    """Selects the points that get a pseudo-label; auto means all of them where more than half of the points are labelled,
    and only the unlabelled ones otherwise."""
    pseudo_share: float = setting(1.0, 0.001, 1.0)
    """Sets the share of the unlabelled points that each step looks at, drawn anew (0.001 to 1); the paper uses all, 1."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class BankSettings:
    """Sets COARSE3D's memory of prototypes."""

    prototypes_per_class: int = setting(20, 1, 1000)
    """Sets the number of prototypes of each class (1 to 1000)."""
    prototype_momentum: float = setting(0.999, 0.0, 1.0)
    """Sets the share of a prototype that is kept when it moves (0 to 1)."""
    prototype_assignment: Assignment = "argmax"
    """Selects how a pixel picks its prototype from the transport plan; gumbel picks at random, as the released code does,
    which is close to chance."""
    prototypes_from_data: bool = False
    """Replaces the noise that a prototype starts as by its first pixels, instead of moving it by one step of the momentum."""
    sinkhorn_epsilon: float = setting(0.05, 0.005, 10.0)
    """Sets the softness of the transport plan between pixels and prototypes (0.005 to 10)."""
    sinkhorn_iterations: int = setting(3, 1, 100)
    """Sets the number of rounds that balance the transport plan (1 to 100)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Coarse3dSettings(BankSettings):
    """Sets COARSE3D; the defaults are those of the paper, and `weight` 0 turns the contrast off."""

    weight: float = setting(0.1, 0.0, 100.0, was="contrast_weight")
    """Sets the weight of the contrastive loss (0 to 100)."""
    warmup: float = setting(0.05, 0.0, 1.0, was="contrast_warmup")
    """Sets the share of the training before the contrastive loss starts (0 to 1); the paper waits 5 of 100 epochs."""
    temperature: float = setting(0.07, 1e-3, 100.0, was="contrast_temperature")
    """Sets the temperature that divides the cosines between anchors and prototypes (0.001 to 100)."""
    base_temperature: float = setting(0.07, 1e-3, 100.0, was="contrast_base_temperature")
    """Sets the base temperature (0.001 to 100); the contrastive loss is multiplied by `temperature` over this."""
    reduction: Reduction = field(default="mean_log", metadata={"was": "contrast_reduction"})
    """Selects how the prototypes of a class are combined; mean_log is the mean of their logs, as in the released code, and
    log_sum is the log of their sum."""
    anchors: int = setting(512, 1, 100000)
    """Sets the number of anchors of each class and scan, drawn with replacement (1 to 100000)."""
    anchor_draw: Literal["entropy", "uniform"] = "entropy"
    """Selects how anchors are drawn; entropy draws confident pixels more often, and uniform draws all alike."""
    pseudo_epochs: int = setting(100, 1, 1000000)
    """Sets the number of epochs that the schedule of pseudo-labels divides the training into (1 to 1000000)."""
    embedding: int = setting(256, 1, 4096)
    """Sets the length of a pixel's embedding (1 to 4096)."""
    projector_width: int = setting(0, 0, 4096)
    """Sets the number of channels between the two layers of the projector (1 to 4096); 0 uses as many as the encoder's
    stages have together."""
    detach_stages: bool = False
    """Trains the projector but not the encoder by the contrast, as the released code does on RangeNet and SqueezeSegV3."""
    memory: Literal["prototypes", "pixels"] = "prototypes"
    """Selects what anchors are compared with; pixels are the latest labelled pixels themselves."""
    memory_pixels: int = setting(5000, 1, 1000000)
    """Sets the number of pixels that `memory` pixels keeps, all classes together (1 to 1000000)."""
    novelty: bool = True
    """Exports a novelty score with the bundle: how unlike everything labelled each point is; it needs `memory` prototypes."""


@dataclass(frozen=True)
class BranchSettings:
    """Sets the distance branch; `aggregate` and `enhance` off and `rounds` 0 are the rungs of the paper's ablation."""

    branch_width: int = setting(128, 8, 4096)
    """Sets the length of the code of a pixel and of a query in the distance branch (8 to 4096), a multiple of `branch_heads`."""
    branch_heads: int = setting(8, 1, 64)
    """Sets the number of heads of the attention among the branch's queries (1 to 64)."""
    branch_ffn: int = setting(512, 8, 16384)
    """Sets the width between the two layers that follow this attention (8 to 16384)."""
    rounds: int = setting(3, 0, 10)
    """Sets how often the queries are updated (0 to 10); the distances before the first and after each round are trained."""
    aggregate: bool = True
    """Lets each query take in the features of the pixels that are near to it."""
    enhance: bool = True
    """Lets the queries look at one another."""
    similarity: Literal["dot", "l2"] = "dot"
    """Selects the measure by which a query and a pixel are compared."""
    metric: bool = True
    """Lets a query measure by geometry as well: straight, along surfaces, along and across the ray, and in height."""
    share_temperature: float = setting(0.1, 1e-3, 10.0)
    """Sets the temperature of the softmax that shares pixels out among queries by distance (0.001 to 10)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.branch_width % self.branch_heads:
            raise ConfigError(f"branch_width: {self.branch_width} is not a multiple of branch_heads {self.branch_heads}")


@dataclass(frozen=True)
class PseudoSettings:
    """Sets which pixels a click may claim."""

    rivals: Literal["anchors", "class"] = "anchors"
    """Selects what a click competes with for a pixel; anchors are all clicks and the stuff classes, each by its own distance,
    and class are only the clicks of the pixel's likeliest class."""
    radius_gate: bool = True
    """Restricts the pseudo mask of a click to pixels within `reach` of it."""
    reach: float = setting(1.4, 0.1, 10.0)
    """Sets how far a click may claim pixels, in radii of its class (0.1 to 10)."""
    all_clicked: bool | None = None
    """States that every object of a labelled scan has a click, so that what no click reaches is stuff; None means yes where
    the labels are drawn with protocol per_instance, and no otherwise."""
    min_prob: float = setting(0.5, 0.0, 1.0)
    """Sets the probability below which a pixel gets no stuff class as pseudo-label (0 to 1)."""
    class_power: float = setting(0.25, 0.0, 1.0)
    """Sets the exponent of the class probability beside the distance (0 to 1); near a click geometry is more reliable than a
    net that is still being trained."""
    without_ground: bool = True
    """Keeps ground points out of all pseudo masks."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class SurePixelSettings:
    """Sets which pixels belong to a click beyond doubt."""

    sure_weight: float = setting(1.0, 0.0, 100.0, was="spread_weight")
    """Sets the weight of the losses at pixels that geometry assigns to one click, or to none, beyond doubt (0 to 100)."""
    sure_reach: float = setting(0.6, 0.0, 2.0, was="spread_reach")
    """Sets the largest distance of such a pixel from its click, along surfaces and as a share of the click's reach (0 to 2)."""
    sure_margin: float = setting(0.3, 0.0, 2.0, was="spread_margin")
    """Sets how much farther any other click must be from such a pixel, as a share of the reach (0 to 2)."""
    sure_prob: float = setting(0.05, 0.0, 1.0, was="spread_prob")
    """Sets the smallest probability that such a pixel has the class of its click (0 to 1)."""


@dataclass(frozen=True)
class MatchSettings:
    """Sets the weights of the query head's losses, which are those of the matching as well."""

    class_weight: float = setting(2.0, 0.0, 1000.0)
    """Sets the weight of the classification loss of a query, in the matching and in the loss (0 to 1000)."""
    mask_weight: float = setting(5.0, 0.0, 1000.0)
    """Sets the weight of the cross-entropy of a query's mask, in the matching and in the loss (0 to 1000)."""
    dice_weight: float = setting(5.0, 0.0, 1000.0)
    """Sets the weight of the dice loss of a query's mask, in the matching and in the loss (0 to 1000)."""
    no_object_weight: float = setting(0.1, 0.0, 1.0)
    """Sets the weight of a query without an object in the classification loss (0 to 1)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class QuerySettings(QueryHeadSettings, MatchSettings):
    """Sets the query head and its losses."""

    def __post_init__(self) -> None:
        QueryHeadSettings.__post_init__(self)


@dataclass(frozen=True)
class PointPanopticSettings(BranchSettings, PseudoSettings, SurePixelSettings, QuerySettings):
    """Sets point-supervised panoptic segmentation, for labels drawn with protocol `per_instance`."""

    distance: Distance = "learned"
    """Selects the distance that pseudo masks come from: the learned one, or one of the handcrafted ones as a baseline."""
    head: Literal["centre", "query"] = "centre"
    """Selects the panoptic head; centre predicts heat and offsets and is fast on a CPU, and query uses learned queries with
    masked attention."""
    truth_instances: bool = False
    """States that the labels are dense and say which object each pixel belongs to: full supervision without pseudo-labels."""
    stage_one: float = setting(0.3, 0.0, 1.0)
    """Sets the share of the training before pseudo-labels are used (0 to 1)."""
    stage_ramp: float = setting(0.1, 0.0, 1.0)
    """Sets the share of the training over which the weight of the pseudo-labels rises from 0 (0 to 1)."""
    head_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the losses of the panoptic head (0 to 100)."""
    pseudo_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the focal loss on the classes of the pseudo-labels (0 to 100)."""
    outside_weight: float = setting(0.3, 0.0, 100.0)
    """Sets the weight of the loss that makes pixels outside all pseudo masks stuff where their class is unknown (0 to 100)."""
    branch_gradient: float = setting(0.1, 0.0, 1.0)
    """Sets the share of the distance branch's gradient that reaches the net (0 to 1); the net should learn classes first."""
    distance_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the distance loss at labelled pixels (0 to 100)."""
    assignment_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the loss that assigns labelled pixels to their own anchor (0 to 100)."""
    tie_weight: float = setting(0.3, 0.0, 100.0)
    """Sets the weight of the affinity loss, by which neighbours on one surface belong together (0 to 100)."""
    tie_gap_m: float = setting(0.3, 0.0, 100.0)
    """Sets the distance in metres beyond which neighbours are on different surfaces (0 to 100)."""
    tie_gap_share: float = setting(0.02, 0.0, 1.0)
    """Sets that distance as a share of the range (0 to 1); the larger of the two applies."""
    tie_pairs: int = setting(20000, 1)
    """Sets the number of neighbour pairs drawn from each scan at each step, at least 1."""
    max_clicks: int = setting(300, 1)
    """Sets the number of clicks of a scan that a step uses at most, drawn at random, at least 1."""

    def __post_init__(self) -> None:
        BranchSettings.__post_init__(self)
        QuerySettings.__post_init__(self)
