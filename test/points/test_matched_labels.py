# SPDX-License-Identifier: Apache-2.0
"""The classes of two label maps: raw ids tell which are the same, unless the maps number their classes differently."""

from __future__ import annotations

import numpy as np
import pytest

from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.matched_labels import in_data_of

OUTDOORS = ("nuscenes", "semantickitti", "semanticposs", "sensaturban", "street", "toronto3d", "vlp32")


def map_of(name: str = "mine", **raw_ids: tuple[int, ...]) -> LabelMap:
    rows = [LabelClass(i, row, (i, i, i), False, raw) for i, (row, raw) in enumerate(raw_ids.items(), 1)]
    return LabelMap(name, (LabelClass(0, "unlabelled", (0, 0, 0), False, (0, 99)), *rows))


def pairs(model: LabelMap, data: LabelMap) -> dict[str, str]:
    """By the name in the data, that in the model; those that the model does not have are missing."""
    found = in_data_of(model, data)[0].to_class(data.to_raw(np.arange(data.num_classes)))
    return {data.names[i]: model.names[k] for i, k in enumerate(found) if k}


@pytest.mark.parametrize("data", OUTDOORS)
@pytest.mark.parametrize("model", OUTDOORS)
def test_classes_of_one_name_are_never_crossed(model: str, data: str) -> None:
    ours, theirs = LabelMap.load(model), LabelMap.load(data)
    found = pairs(ours, theirs)
    common = set(ours.names[1:]) & set(theirs.names[1:])
    assert {name: found[name] for name in common} == {name: name for name in common}
    matched, _ = in_data_of(ours, theirs)
    assert matched.names == ours.names
    assert not matched.unknown_raw_ids(np.array([raw for row in theirs.classes for raw in row.raw_ids]))


def test_raw_ids_decide_where_the_numbering_is_one() -> None:
    data = map_of("data", car=(10, 252), lorry=(18,), hedge=(70,), sky=(5,))
    model = map_of("model", vehicle=(252, 18), car=(10,), vegetation=(70,), sky=(6,))
    matched, said = in_data_of(model, data)
    assert pairs(model, data) == {"car": "car", "lorry": "vehicle", "hedge": "vegetation", "sky": "sky"}
    assert matched.to_class(np.array([252, 6, 5, 99, 0])).tolist() == [1, 4, 4, 0, 0]
    assert said == ["by their raw ids, 'lorry' counts as 'vehicle'; 'hedge' counts as 'vegetation'"]
    assert in_data_of(model, model) == (model, [])


def test_names_decide_where_each_map_counts_for_itself() -> None:
    data, model = map_of("data", road=(1,), car=(2,), tree=(3,)), map_of("model", car=(1,), road=(2,), pole=(3,))
    matched, said = in_data_of(model, data)
    assert pairs(model, data) == {"road": "road", "car": "car"}
    assert matched.to_class(np.array([3, 99])).tolist() == [0, 0], "a tree is no pole"
    assert said == [
        "'car' is raw id 2 in the map 'data' and 1 in 'model', so the classes of these maps are matched by their names"
    ]
