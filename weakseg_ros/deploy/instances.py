# SPDX-License-Identifier: Apache-2.0
"""From the network's answers to objects: which of the thing pixels belong together, and which object each point is of.

The classes stay those of the semantic answer, which is calibrated, with one exception: within a query's object every thing
pixel takes the query's class, so that an object has one class. Queries and centres never make a thing of stuff.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.grouping import group_centres, group_components, object_radii_m
from weakseg_ros.deploy.queries import panoptic_inference
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.lift import KnnSettings, lift, range_image, vote
from weakseg_ros.points.projection import RangeView


class ObjectFinder:
    """Objects in the answers of one bundle's network.

    `auto` uses the head that the bundle has, queries before centres, and connected pixels where it has none; `components`
    uses connected pixels whatever the bundle has; `none` finds nothing.
    """

    def __init__(self, labels: LabelMap, heads: Collection[str], full_circle: bool) -> None:
        self._of_head = next((way for head, way in OBJECTS_OF.items() if head in heads), None)
        self._things = labels.things
        self._radius_m = object_radii_m(labels)
        self._full_circle = full_circle

    def find(
        self, outputs: Mapping[str, NDArray[Any]], xyz: NDArray[np.float32], view: RangeView, instances: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """(classes, instance ids) of the (H, W) pixels, ids from 1 up, 0 = none; all pixels of an id have one class.

        `outputs` are the network's of one image, `class_id` 0 where no point is; `xyz` (N, 3) m.
        """
        class_image: NDArray[np.uint8] = outputs["class_id"]
        if instances == "none" or not self._things[class_image].any():
            return class_image, np.zeros(class_image.shape, np.uint16)
        of_head = self._of_head if instances == "auto" else None
        if of_head is not None:
            return of_head(self, class_image, outputs, xyz, view)
        return class_image, group_components(class_image, xyz, view, self._things, self._full_circle)

    def lift(
        self,
        instance_image: NDArray[np.uint16],
        class_image: NDArray[np.uint8],
        class_id: NDArray[np.uint8],
        view: RangeView,
        voted: bool,
    ) -> NDArray[np.uint16]:
        """The object of each of the N points, which has the point's class; 0 for a point whose class is none of a thing.

        Where the classes (N,) were `voted` on by neighbours, a point that is hidden behind another one, or was outvoted,
        asks them for its object too.
        """
        instance = lift(instance_image, view, 0)
        if not instance_image.any():
            return instance
        if voted:
            hidden = lift(view.point_of_pixel, view, -1) != np.arange(len(class_id))
            outvoted = lift(class_image, view, 0) != class_id
            asks = np.flatnonzero(self._things[class_id] & (hidden | outvoted))
            ranges, own_range, own_pixel = range_image(view), view.range_of_point[asks], view.pixel_of_point[asks]
            instance[asks] = vote(instance_image, ranges, own_range, own_pixel, self._full_circle, KnnSettings())
        of_object = np.zeros(int(instance_image.max()) + 1, np.uint8)
        of_object[instance_image.ravel()] = class_image.ravel()
        of_object[0] = 0
        return np.where(of_object[instance] == class_id, instance, np.uint16(0))

    def of_centres(
        self, class_image: NDArray[np.uint8], outputs: Mapping[str, NDArray[Any]], xyz: NDArray[np.float32], view: RangeView
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Objects from `centre` (H, W) and `offset` (2, H, W); see `find`."""
        return class_image, group_centres(class_image, xyz, view, outputs["centre"], outputs["offset"], self._radius_m)

    def of_queries(
        self, class_image: NDArray[np.uint8], outputs: Mapping[str, NDArray[Any]], xyz: NDArray[np.float32], view: RangeView
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Objects from `query_class` (Q, K) logits, the last 'no object', and `query_mask` (Q, h, w) logits over the image."""
        class_logits, mask_logits = outputs["query_class"], outputs["query_mask"]
        rows, cols = (
            np.arange(full) * small // full for full, small in zip(class_image.shape, mask_logits.shape[1:], strict=True)
        )
        held = np.zeros(mask_logits.shape[1:], np.bool_)
        row, col = np.nonzero(class_image)
        held[rows[row], cols[col]] = True
        segments = panoptic_inference(class_logits, mask_logits[:, held], self._things[1:])
        number = np.zeros(len(segments.classes) + 1, np.uint16)
        number[1:][segments.things] = np.arange(1, np.count_nonzero(segments.things) + 1)
        coarse, classes = np.zeros(held.shape, np.uint16), np.zeros(held.shape, np.uint8)
        coarse[held] = number[segments.image]
        classes[held] = np.append(0, segments.classes + 1)[segments.image]
        instance = np.where(self._things[class_image], coarse[np.ix_(rows, cols)], np.uint16(0))
        return np.where(instance > 0, classes[np.ix_(rows, cols)], class_image), instance


OBJECTS_OF = {"queries": ObjectFinder.of_queries, "centres": ObjectFinder.of_centres}
"""how objects are found in the answers of a head; where a bundle has several of these heads, the first one here decides"""
