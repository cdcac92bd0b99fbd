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


def stored(folder: Path) -> dict[str, bytes]:
    """Label files and record."""
    path = folder / "sparse" / "clicks"
    return {file.name: file.read_bytes() for file in (*path.glob("*.label"), path / "sparse.yaml")}


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


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (own_map(ROWS, (3, 2, 1)), r"raw id 1 is 'road' in these labels and 'car' in the map .*, which has another 'road'"),
        (
            own_map(("road", "wall"), (3, 2)),
            r"raw id 3 is 'car' in these labels and 'road' .*, while 'road' is raw id 1",
        ),
    ],
)
def test_raw_ids_and_names_that_contradict_each_other_are_refused(labels: LabelMap, told: str, clicked: Path) -> None:
    before = stored(clicked)
    with pytest.raises(DataError, match=told):
        ClickStore(clicked, labels)
    assert stored(clicked) == before
    assert ClickStore(clicked, own_map()).clicks == 3


@pytest.mark.parametrize("labels", [own_map(("road", "pile", "car")), own_map(ROWS, (1, 20, 3)), own_map(ROWS, (10, 20, 30))])
def test_changes_can_be_taken_back_under_another_map(labels: LabelMap, clicked: Path) -> None:
    before = ClickStore(clicked, own_map())
    before.add("000002", [5, 6], 2)
    before.add("000002", [5], 3)
    store = ClickStore(clicked, labels)
    assert store.undo() == "000002"
    assert store.labelled("000002")[0][[5, 6]].tolist() == [2, 2]
    assert list(store.record.clicks_per_class.values()) == [2, 2, 1]
    assert store.redo() == "000002"
    assert store.labelled("000002")[0][[5, 6]].tolist() == [3, 2]
    for _ in range(4):
        store.undo()
    assert (store.clicks, store.clicked) == (0, [])


@pytest.mark.parametrize("raw", [(40, 50, 10), (1, 2, 10)])
def test_reading_clicks_in_the_classes_of_others_rewrites_nothing(raw: tuple[int, ...], clicked: Path) -> None:
    before = stored(clicked)
    theirs = own_map(("car", "road", "wall"), raw[-1:] + raw[:-1], name="theirs")
    scans = clicked_scans(clicked, theirs)
    assert [np.unique(scan.class_id).tolist() for scan in (scans[0], scans[1])] == [[0, 2], [0, 1]]
    assert scans[1].instance_id is not None
    assert scans[1].instance_id[30] == 7
    assert stored(clicked) == before
