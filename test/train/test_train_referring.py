# SPDX-License-Identifier: Apache-2.0
"""A referring head learns which object a sentence means, from superpoints on disk; views keep what is meant."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from support import optional

torch = optional("torch")
optional("onnx")

from weakseg_ros.data.expressions import Expression, expression_lines
from weakseg_ros.data.scan_files import EXPRESSIONS
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.points.superpoints import Superpoints
from weakseg_ros.train import referring_data
from weakseg_ros.train.referring import begin, draw_labelled, evaluate, train
from weakseg_ros.train.referring_config import ReferringTraining
from weakseg_ros.train.referring_data import CACHE_FORMAT, EncodedScan, ReferringData, Views, place_of, save_scan

CAR, PERSON, ROAD = 11, 13, 1
NAMES = {CAR: "car", PERSON: "pedestrian"}
SCANS = 40


def made_up(seed: int) -> tuple[EncodedScan, list[tuple[str, tuple[int, ...], tuple[int, ...]]]]:
    """A car and a person on each side or on one, and what is said of them: (text, meant, alike)."""
    rng = np.random.default_rng(seed)
    kinds, sides = np.array([CAR, CAR, PERSON, PERSON, ROAD]), np.array([1, -1, 1, -1, 1])
    kept = np.append(rng.random(4) < 0.7, True)
    kinds, sides = kinds[kept], sides[kept]
    count, ones = len(kinds), np.ones(len(kinds), np.float32)
    centre = np.stack([rng.uniform(4, 12, count), sides * rng.uniform(2, 8, count), np.zeros(count)], axis=1).astype(np.float32)
    classes = np.eye(15, dtype=np.float32)[kinds]
    superpoints = Superpoints(
        centre, ones, ones, ones, ones, classes, classes * 0, kinds != ROAD, np.zeros((count, 16), np.float32)
    )
    points = np.full(count, 10)
    scan = EncodedScan(superpoints, points, np.arange(1, count + 1), points, np.diag(points))
    said = []
    for kind, name in NAMES.items():
        for side, word in ((1, "left"), (-1, "right")):
            meant = tuple(int(i) + 1 for i in np.flatnonzero((kinds == kind) & (sides == side)))
            alike = tuple(int(i) + 1 for i in np.flatnonzero((kinds == kind) & (sides != side)))
            said += [(f"the {name} on the {word}", meant, alike), (f"stop beside the {word} {name}", meant, alike)]
    return scan, said


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReferringData:
    folder, bundle = tmp_path_factory.mktemp("told"), Bundle.load("models/street")
    rows = []
    for number in range(SCANS):
        scan, said = made_up(number)
        for i, (text, meant, alike) in enumerate(said):
            case = "none" if not meant else "multiple" if alike else "unique"
            rows.append(Expression(f"{number:06d}", text, meant, case, number * 10 + i // 2, (), alike if meant else ()))
        save_scan(place_of(folder / "cache", bundle, folder, rows[-len(said) :]), scan)
    (folder / EXPRESSIONS).write_text("\n".join(expression_lines(rows)))
    return ReferringData(folder, bundle, folder / "cache")


def config(**changes: object) -> ReferringTraining:
    return ReferringTraining(**{"width": 16, "layers": 1, "steps": 120, "burn_in": 80, "batch": 32, "dropout": 0.0, **changes})  # type: ignore[arg-type]


def test_strong_views_keep_what_is_meant(data: ReferringData) -> None:
    views = Views(data, data.vocabulary(), np.random.default_rng(0))
    number = next(i for i, row in enumerate(data.expressions) if row.targets and "left" in row.text)
    sides = set()
    for _ in range(20):
        strong, weak = views.pair([number])
        assert torch.equal(strong.target, weak.target)
        known = {word: views.vocabulary.read(word).tokens[0] for word in ("left", "right")}
        side = next((word for word, token in known.items() if token in strong.tokens[0]), None)
        across = float(strong.superpoints[0, int(strong.target[0].argmax()), 1])
        if side is not None:  # it was understood
            assert (across > 0) == (side == "left")
            sides.add(side)
    assert sides == {"left", "right"}


def test_what_was_half_kept_of_a_scan_goes(data: ReferringData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = {f"{number:06d}": made_up(number)[0] for number in range(SCANS)}
    seen = [SimpleNamespace(cloud=scan, instance_id=()) for scan in scans.values()]
    monkeypatch.setattr(referring_data, "open_scans", lambda folder: Scans(seen, tuple(scans)))
    monkeypatch.setattr(referring_data, "open_encoder", lambda bundle, place, cloud: None)
    monkeypatch.setattr(referring_data, "encode_scan", lambda segmenter, cloud, instance_id: cloud)
    bundle = Bundle.load("models/street")
    cache = tmp_path / f"{bundle.content_hash[:16]}-{CACHE_FORMAT}"
    cache.mkdir()
    (cache / ".000001.npz.4194304-0.tmp").write_text("a training was killed here")
    ReferringData(Path(data.name), bundle, tmp_path)
    kept = sorted(path.name for path in cache.iterdir())
    assert [name.split("-")[0] for name in kept] == list(scans)
    assert all(name.endswith(".npz") for name in kept)


class Scans(list[Any]):
    """Scans with keys."""

    def __init__(self, scans: list[Any], keys: tuple[str, ...]) -> None:
        super().__init__(scans)
        self.keys = keys


def test_labels_are_drawn_once_and_a_larger_share_holds_a_smaller(data: ReferringData) -> None:
    few, many = (draw_labelled(data, ratio, seed=3) for ratio in (0.05, 0.5))
    assert len(few) == round(0.05 * len(data))
    assert set(few) < set(many)
    assert few != draw_labelled(data, 0.05, seed=4)


@pytest.mark.slow
def test_a_head_learns_with_and_without_masks_for_all(data: ReferringData) -> None:
    views = Views(data, data.vocabulary(), np.random.default_rng(0))
    fresh = begin(data, 15, config(), views.vocabulary)
    before = evaluate(fresh.teacher, views)
    train(fresh, views, draw_labelled(data, 1.0, 0), config(method="supervised"), 120)
    after = evaluate(fresh.teacher, views)
    assert after["ceiling"] == 1.0
    assert after["miou"] > max(0.8, before["miou"] + 0.3)
    few = config(method="both", ratio=0.2)
    state = begin(data, 15, few, views.vocabulary)
    figures = train(state, views, draw_labelled(data, 0.2, 0), few, 120)
    assert figures["pool"] > 0
    assert evaluate(state.teacher, views)["miou"] > before["miou"] + 0.3


def test_scans_of_one_name_in_two_folders_are_not_taken_for_each_other(tmp_path: Path) -> None:
    bundle = Bundle.load("models/street")
    rows = [Expression("000000", "the car", (1,), "unique", 0)]
    places = {place_of(tmp_path, bundle, tmp_path / name, rows) for name in ("train", "test")}
    assert len(places) == 2
    other = [Expression("000000", "the car", (2,), "unique", 0)]  # the folder was written again
    assert place_of(tmp_path, bundle, tmp_path / "train", other) not in places
