# SPDX-License-Identifier: Apache-2.0
"""A label map of two things and one kind of stuff, for tests of heads and methods that find objects."""

from __future__ import annotations

from weakseg_ros.points.labels import LabelClass, LabelMap

LABELS = LabelMap(
    "toy",
    (
        LabelClass(0, "none", (0, 0, 0), False, (0,)),
        LabelClass(1, "car", (1, 0, 0), True, (10,)),
        LabelClass(2, "person", (2, 0, 0), True, (30,)),
        LabelClass(3, "road", (3, 0, 0), False, (40,)),
    ),
)
CAR, PERSON, ROAD = 1, 2, 3
