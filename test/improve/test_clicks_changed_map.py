# SPDX-License-Identifier: Apache-2.0
"""Labelling goes on where the label map has changed, as far as that is safe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from weakseg_ros.errors import DataError
from weakseg_ros.improve.label.clicks import ClickStore, clicked_scans
from weakseg_ros.points.labels import LabelClass, LabelMap

ROWS = ("road", "wall", "car")


def own_map(names: tuple[str, ...] = ROWS, raw: tuple[int, ...] = (1, 2, 3, 4), name: str = "mine") -> LabelMap:
    rows = [LabelClass(0, "unlabelled", (0, 0, 0), False, (0,))]
    rows += [LabelClass(i, each, (i, i, i), each == "car", (raw[i - 1],)) for i, each in enumerate(names, 1)]
    return LabelMap(name, tuple(rows))


@pytest.fixture
def clicked(bare_folder: Path) -> Path:
    (bare_folder / "manifest.yaml").unlink()
    store = ClickStore(bare_folder, own_map())
    store.add("000000", [10, 11], 1)
    store.add("000001", [30], 3, instance_id=7)
    store.mark_done("000000")
    return bare_folder


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (own_map((*ROWS, "kerb")), "new: kerb"),
        (own_map(("kerb", *ROWS), (4, 1, 2, 3)), "new: kerb"),
        (own_map(("road", "building", "car")), "'wall' is 'building' now"),
        (own_map(("street", "wall", "car")), "'road' is 'street' now"),
        (own_map(("road", "car"), (1, 3)), "gone, and never clicked: wall"),
        (own_map(ROWS, (1, 2, 9)), "raw id 3 is written as 9 now"),
    ],
)
def test_labelling_goes_on_with_a_map_that_has_grown(
    labels: LabelMap, said: str, clicked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ClickStore(clicked, labels)
    assert said in caplog.text
    assert "clicks and done marks are kept" in caplog.text
    assert (store.clicks, store.done) == (3, ("000000",))
    first, car = labels.names[labels.to_class(np.array([1]))[0]], labels.id_of("car")
    assert store.record.clicks_per_class[first] == store.record.points_per_class[first] == 2
    assert store.record.points_per_class["car"] == 1
    class_id, instance = store.labelled("000001")
    assert (class_id[30], instance[30]) == (car, 7)
    store.add("000002", [3], len(labels.names) - 1)
    caplog.clear()
    assert ClickStore(clicked, labels).clicks == 4
    assert not caplog.text
    assert len(clicked_scans(clicked, labels)) == 3


@pytest.mark.parametrize("labels", [own_map(("road", "wall")), own_map(("road", "wall", "van"), (1, 2, 9))])
def test_a_map_without_a_class_that_was_clicked_is_refused_by_its_name(labels: LabelMap, clicked: Path) -> None:
    with pytest.raises(DataError, match=r"has no class 'car' \(raw id 3, 1 point labelled\); put it back"):
        ClickStore(clicked, labels)
    assert ClickStore(clicked, own_map()).clicks == 3


def test_another_map_that_happens_to_share_raw_ids_is_refused(clicked: Path) -> None:
    with pytest.raises(DataError, match="use the map of the clicks with --label-map"):
        ClickStore(clicked, own_map(("grass", "fence", "car"), name="other"))
