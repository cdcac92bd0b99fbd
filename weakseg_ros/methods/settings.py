# SPDX-License-Identifier: Apache-2.0
"""The settings of methods that more than one file needs, free of torch: the help of `weakseg train` is made of them.

The first paragraph of a class is its help text. `was` is what a setting was called when the settings of all
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
class NoSettings:
    """Sets nothing."""


@dataclass(frozen=True)
class SupervisedSettings:
    """Sets the losses at labelled pixels; `gamma` 0, `class_weights` off and `lovasz_weight` 0 give plain cross-entropy."""

    focal_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the focal loss (0 to 100)."""
    lovasz_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the Lovász-Softmax loss (0 to 100)."""
    gamma: float = setting(2.0, 0.0, 10.0)
    """Sets the focusing exponent of the focal loss (0 to 10); larger values give well-classified pixels less weight."""
    class_weights: bool = True
    """Gives rarely labelled classes a larger weight in the focal loss."""
    class_weight_rule: Literal["log", "inverse"] = "log"
    """Selects how the class weights follow from the class frequencies in the labels: 'log' is COARSE3D's rule, and 'inverse' is
    ERDA's, 1 / (share + 0.02)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class ErdaSettings:
    """Sets ERDA; the paper uses `entropy_weight` 1 with `alignment` 'kl', which equals the cross-entropy between p and q."""

    weight: float = setting(0.1, 0.0, 100.0, was="erda_weight")
    """Sets the weight of the ERDA loss (0 to 100); the paper uses 0.1, and 0.01 on some backbones."""
    entropy_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the pseudo-labels' entropy within the ERDA loss (0 to 100), lambda in the paper."""
    alignment: Alignment = "kl"
    """Selects the divergence between pseudo-label and prediction that the ERDA loss minimises."""
    momentum: float = setting(0.999, 0.0, 1.0, was="erda_momentum")
    """Sets the largest momentum of the class prototypes (0 to 1); each step keeps this share of a prototype."""
    memory: float = setting(0.01, 0.0, 1.0)
    """Sets the share of the training over which a class prototype averages (0 to 1); short trainings get a smaller momentum
    from it, for example 0.98 with 5,000 steps, and 0 always uses `momentum`."""
    published: bool = False
    """Uses the published momentum for any number of steps."""
    temperature: float = setting(1.0, 1e-3, 100.0, was="erda_temperature")
    """Sets the temperature of the softmax over the cosine similarities between features and prototypes (0.001 to 100); the
    paper uses 1, which keeps the pseudo-labels soft."""
    prototype_start: Literal["zeros", "xavier"] = "zeros"
    """Selects the initial value of a prototype."""
    official_reset: bool = False
    """Resets the prototypes of classes that a batch does not contain, as the released code does; the paper keeps them."""
    pseudo_points: Literal["auto", "unlabelled", "all"] = "auto"
    """Selects which points get a pseudo-label; 'auto' means all points if more than half of them are labelled, and only the
    unlabelled ones otherwise."""
    pseudo_share: float = setting(1.0, 0.001, 1.0)
    """Sets the share of the unlabelled points that each step samples (0.001 to 1); the paper uses all of them (1)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class BankSettings:
    """Sets COARSE3D's memory of prototypes."""

    prototypes_per_class: int = setting(20, 1, 1000)
    """Sets the largest number of prototypes of each class (1 to 1000); a class gets as many as it has labelled points in a
    batch, but not fewer than `fewest_prototypes`."""
    fewest_prototypes: int = setting(4, 1, 1000)
    """Sets the smallest number of prototypes of each class, for classes with few labels (1 to 1000)."""
    prototype_momentum: float = setting(0.999, 0.0, 1.0)
    """Sets the largest momentum of the prototypes (0 to 1); each update keeps this share of a prototype."""
    prototype_memory: float = setting(0.00837, 0.0, 1.0)
    """Sets the share of the training over which a prototype averages (0 to 1); short trainings get a smaller momentum from it,
    for example 0.976 with 5,000 steps, and 0 always uses `prototype_momentum`."""
    prototype_assignment: Assignment = "argmax"
    """Selects how a pixel is assigned to a prototype from the transport plan: 'argmax' takes the largest entry, and 'gumbel'
    samples one, as the released code does, which is almost uniform."""
    prototypes_from_data: bool = False
    """Initialises each prototype from the first pixels assigned to it instead of from noise."""
    sinkhorn_epsilon: float = setting(0.05, 0.005, 10.0)
    """Sets the entropy regularisation of the optimal transport between pixels and prototypes (0.005 to 10)."""
    sinkhorn_iterations: int = setting(3, 1, 100)
    """Sets the number of Sinkhorn iterations of the optimal transport (1 to 100)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Coarse3dSettings(BankSettings):
    """Sets COARSE3D; the defaults are those of the paper, and `weight` 0 turns the contrastive loss off."""

    weight: float = setting(0.1, 0.0, 100.0, was="contrast_weight")
    """Sets the largest weight of the contrastive loss (0 to 100)."""
    full_weight_labels: float = setting(500.0, 0.0, 1e9)
    """Sets the number of labelled points in a batch above which the weight of the contrastive loss decreases in proportion (1
    to 1000000000), because many labels teach the classes directly; 0 keeps the weight constant."""
    published: bool = False
    """Uses the published constants for any number of steps and labels: fixed weight, momentum and number of prototypes,
    prototypes initialised from noise, and anchors only for classes that are labelled in the same scan."""
    warmup: float = setting(0.05, 0.0, 1.0, was="contrast_warmup")
    """Sets the share of the training steps before the contrastive loss starts (0 to 1); the paper waits 5 of 100 epochs."""
    temperature: float = setting(0.07, 1e-3, 100.0, was="contrast_temperature")
    """Sets the temperature of the contrastive loss, which divides the cosine similarities between anchors and prototypes (0.001
    to 100)."""
    base_temperature: float = setting(0.07, 1e-3, 100.0, was="contrast_base_temperature")
    """Sets the base temperature of the contrastive loss (0.001 to 100); the loss is multiplied by `temperature` /
    `base_temperature`."""
    reduction: Reduction = field(default="mean_log", metadata={"was": "contrast_reduction"})
    """Selects how the contrastive loss combines the prototypes of a class: 'mean_log' averages their log-probabilities, as the
    released code does, and 'log_sum' takes the log of their summed probabilities."""
    anchors: int = setting(512, 1, 100000)
    """Sets the number of anchors per class and scan, sampled with replacement (1 to 100000)."""
    anchor_draw: Literal["entropy", "uniform"] = "entropy"
    """Selects how anchors are sampled: 'entropy' prefers confident pixels, and 'uniform' treats all pixels alike."""
    pseudo_epochs: int = setting(100, 1, 1000000)
    """Sets the number of epochs into which the pseudo-label schedule divides the training (1 to 1000000)."""
    embedding: int = setting(256, 1, 4096)
    """Sets the dimension of the pixel embeddings (1 to 4096)."""
    projector_width: int = setting(0, 0, 4096)
    """Sets the number of hidden channels of the projector (1 to 4096); 0 uses the total number of channels of the encoder
    stages."""
    detach_stages: bool = False
    """Stops the gradient of the contrastive loss at the encoder, as the released code does on RangeNet and SqueezeSegV3."""
    memory: Literal["prototypes", "pixels"] = "prototypes"
    """Selects what the anchors are contrasted with: class 'prototypes', or a queue of the latest labelled 'pixels'."""
    memory_pixels: int = setting(5000, 1, 1000000)
    """Sets the size of the pixel queue over all classes, with `memory` 'pixels' (1 to 1000000)."""
    novelty: bool = True
    """Adds a novelty score to the exported bundle, which is high for points unlike any labelled class; it needs `memory`
    'prototypes'."""


@dataclass(frozen=True)
class ConfidenceSettings:
    """Sets which predictions of the teacher become pseudo-labels."""

    sure: float = setting(0.9, 0.0, 1.0)
    """Sets the teacher confidence above which its class always becomes a pseudo-label (0 to 1); LaserMix uses 0.9."""
    share: float = setting(0.5, 0.0, 1.0)
    """Sets the share of the most confident pixels of each class and range band that also become pseudo-labels, although their
    confidence is below `sure` (0 to 1)."""
    least: float = setting(0.3, 0.0, 1.0)
    """Sets the teacher confidence below which its class never becomes a pseudo-label (0 to 1)."""
    range_bands_m: tuple[float, ...] = (8.0, 15.0, 25.0, 40.0)
    """Lists the borders of the range bands for `share` in metres, ascending and above 0; an empty list means a single band."""

    def __post_init__(self) -> None:
        check_ranges(self)
        edges = self.range_bands_m
        if any(edge <= 0 for edge in edges) or list(edges) != sorted(set(edges)):
            raise ConfigError(f"range_bands_m: {list(edges)} must ascend and be above 0")


@dataclass(frozen=True)
class ViewSettings:
    """Sets how the images of a batch are mixed for the student."""

    bands: float = setting(0.5, 0.0, 1.0)
    """Sets the probability of taking every other inclination band of an image from another scan of the batch (0 to 1)."""
    band_counts: tuple[int, ...] = (3, 4, 5, 6)
    """Lists the possible numbers of inclination bands, each 2 or more; one is drawn each time."""
    sectors: float = setting(0.5, 0.0, 1.0)
    """Sets the probability of taking a sector of columns of an image from another scan of the batch (0 to 1)."""
    objects: float = setting(0.5, 0.0, 1.0)
    """Sets the probability of pasting the thing pixels of another scan of the batch where they are nearer (0 to 1)."""
    drop: float = setting(0.2, 0.0, 0.9)
    """Sets the largest share of pixels that lose their point in the student's image (0 to 0.9)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.band_counts or min(self.band_counts) < 2:
            raise ConfigError(
                f"band_counts: {list(self.band_counts)} must contain numbers of 2 or more; LaserMix uses 3, 4, 5, 6"
            )


@dataclass(frozen=True)
class ConsistencySettings(ConfidenceSettings, ViewSettings):
    """Sets the mean teacher, which provides pseudo-labels for a student that is trained on mixed scans."""

    weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the losses on the mixed images (0 to 100)."""
    ramp: float = setting(0.2, 0.0, 1.0)
    """Sets the share of the training steps over which the weight rises from near 0 (0 to 1); 0 is right for a training that
    starts from a good model."""
    memory: float = setting(0.02, 0.0, 1.0)
    """Sets the share of the training over which the teacher averages the student's weights (0 to 1); the decay per step follows
    from it, for example 0.95 with 1,000 steps and 0.999 with 50,000 steps at 0.02."""
    targets: Literal["confident", "dense"] = "confident"
    """Selects the pseudo-labels: 'confident' are the classes of which the teacher is confident, and 'dense' are the teacher's
    soft predictions at every pixel with ERDA's loss."""
    temperature: float = setting(1.0, 1e-2, 100.0)
    """Sets the temperature of the teacher's soft predictions with `targets` 'dense' (0.01 to 100); values below 1 make them
    sharper."""

    def __post_init__(self) -> None:
        ConfidenceSettings.__post_init__(self)
        ViewSettings.__post_init__(self)


@dataclass(frozen=True)
class BranchSettings:
    """Sets the distance branch; the paper's ablation turns off `aggregate` and `enhance` and sets `rounds` to 0."""

    branch_width: int = setting(128, 8, 4096)
    """Sets the number of embedding dimensions in the distance branch (8 to 4096), which must be a multiple of `branch_heads`."""
    branch_heads: int = setting(8, 1, 64)
    """Sets the number of attention heads in the distance branch (1 to 64)."""
    branch_ffn: int = setting(512, 8, 16384)
    """Sets the number of hidden channels of the feed-forward layers in the distance branch (8 to 16384)."""
    rounds: int = setting(3, 0, 10)
    """Sets the number of query updates in the distance branch (0 to 10); the distances before the first and after each update
    are supervised."""
    aggregate: bool = True
    """Aggregates the features of nearby pixels into each query of the distance branch."""
    enhance: bool = True
    """Enables self-attention among the queries of the distance branch."""
    similarity: Literal["dot", "l2"] = "dot"
    """Selects the similarity of a query and a pixel in the distance branch: dot product or negative L2 distance."""
    metric: bool = True
    """Adds handcrafted distances to the learned one: Euclidean, along surfaces, along and across the ray, and in height."""
    share_temperature: float = setting(0.1, 1e-3, 10.0)
    """Sets the temperature of the softmax that assigns pixels to queries by distance (0.001 to 10)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.branch_width % self.branch_heads:
            raise ConfigError(f"branch_width: {self.branch_width} is not a multiple of branch_heads {self.branch_heads}")


@dataclass(frozen=True)
class PseudoSettings:
    """Sets how pseudo masks are grown from clicks."""

    rivals: Literal["anchors", "class"] = "anchors"
    """Selects what competes with a click for a pixel: 'anchors' are all clicks and the stuff classes, each with its own
    distance, and 'class' are only the clicks of the pixel's most likely class."""
    radius_gate: bool = True
    """Restricts the pseudo mask of a click to pixels within the search radius `reach`."""
    reach: float = setting(1.4, 0.1, 10.0)
    """Sets the search radius around a click as a multiple of the typical object radius of its class (0.1 to 10)."""
    all_clicked: bool | None = None
    """States that every object of a labelled scan has a click, so that pixels out of reach of all clicks are stuff; None means
    yes for labels drawn with the protocol per_instance, and no otherwise."""
    min_prob: float = setting(0.5, 0.0, 1.0)
    """Sets the smallest class probability at which a pixel gets a stuff class as pseudo-label (0 to 1)."""
    class_power: float = setting(0.25, 0.0, 1.0)
    """Sets the exponent of the class probability when it is combined with the distance (0 to 1); small values trust the
    geometry more than the net."""
    without_ground: bool = True
    """Excludes ground points from all pseudo masks."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class SurePixelSettings:
    """Sets which pixels are assigned to a click with certainty."""

    sure_weight: float = setting(1.0, 0.0, 100.0, was="spread_weight")
    """Sets the weight of the losses at sure pixels, which geometry assigns to exactly one click or to none (0 to 100)."""
    sure_reach: float = setting(0.6, 0.0, 2.0, was="spread_reach")
    """Sets the largest distance of a sure pixel from its click, along surfaces, as a share of the search radius (0 to 2)."""
    sure_margin: float = setting(0.3, 0.0, 2.0, was="spread_margin")
    """Sets how much farther every other click must be from a sure pixel, as a share of the search radius (0 to 2)."""
    sure_prob: float = setting(0.05, 0.0, 1.0, was="spread_prob")
    """Sets the smallest predicted probability of the click's class at a sure pixel (0 to 1)."""


@dataclass(frozen=True)
class MatchSettings:
    """Sets the weights of the query head's losses, which the matching uses as costs."""

    class_weight: float = setting(2.0, 0.0, 1000.0)
    """Sets the weight of the query head's classification loss, also in the matching (0 to 1000)."""
    mask_weight: float = setting(5.0, 0.0, 1000.0)
    """Sets the weight of the query head's mask cross-entropy, also in the matching (0 to 1000)."""
    dice_weight: float = setting(5.0, 0.0, 1000.0)
    """Sets the weight of the query head's dice loss, also in the matching (0 to 1000)."""
    no_object_weight: float = setting(0.1, 0.0, 1.0)
    """Sets the weight of queries without an object in the query head's classification loss (0 to 1)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class QuerySettings(QueryHeadSettings, MatchSettings):
    """Sets the query head and its losses."""

    def __post_init__(self) -> None:
        QueryHeadSettings.__post_init__(self)


@dataclass(frozen=True)
class PointPanopticSettings(BranchSettings, PseudoSettings, SurePixelSettings, QuerySettings):
    """Sets point-supervised panoptic segmentation, for labels drawn with the protocol `per_instance`."""

    distance: Distance = "learned"
    """Selects the distance for the pseudo masks: the learned distance, or a handcrafted distance as a baseline."""
    head: Literal["centre", "query"] = "centre"
    """Selects the panoptic head: 'centre' predicts a centre heatmap with offsets and is fast on a CPU, and 'query' uses learned
    queries with masked attention."""
    truth_instances: bool = False
    """Trains with full supervision on dense instance labels, without pseudo-labels."""
    stage_one: float = setting(0.3, 0.0, 1.0)
    """Sets the share of the training steps before pseudo-labels are used (0 to 1)."""
    stage_ramp: float = setting(0.1, 0.0, 1.0)
    """Sets the share of the training steps over which the weight of the pseudo-labels rises from 0 (0 to 1)."""
    head_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the panoptic head's losses (0 to 100)."""
    pseudo_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the focal loss on the pseudo-labels' classes (0 to 100)."""
    outside_weight: float = setting(0.3, 0.0, 100.0)
    """Sets the weight of the loss that pushes unlabelled pixels outside all pseudo masks towards stuff classes (0 to 100)."""
    branch_gradient: float = setting(0.1, 0.0, 1.0)
    """Scales the gradient that flows from the distance branch into the net (0 to 1); small values let the net learn classes
    first."""
    distance_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the distance loss at labelled pixels (0 to 100)."""
    assignment_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the assignment loss, which assigns labelled pixels to their own anchor (0 to 100)."""
    tie_weight: float = setting(0.3, 0.0, 100.0)
    """Sets the weight of the affinity loss, which pulls neighbouring pixels of one surface to the same object (0 to 100)."""
    tie_gap_m: float = setting(0.3, 0.0, 100.0)
    """Sets the gap in metres above which two neighbouring pixels belong to different surfaces for the affinity loss (0 to
    100)."""
    tie_gap_share: float = setting(0.02, 0.0, 1.0)
    """Sets the same gap as a share of the range (0 to 1); the larger of this and `tie_gap_m` applies."""
    tie_pairs: int = setting(20000, 1)
    """Sets the number of neighbour pairs per scan and step in the affinity loss (1 or more)."""
    max_clicks: int = setting(300, 1)
    """Limits the number of clicks per scan and step, drawn at random (1 or more)."""

    def __post_init__(self) -> None:
        BranchSettings.__post_init__(self)
        QuerySettings.__post_init__(self)
