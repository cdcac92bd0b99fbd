# SPDX-License-Identifier: Apache-2.0
"""Sentences and superpoints to train a referring head on; each scan goes through the frozen network once and is kept on disk."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from weakseg_ros.data.arrays import open_archive
from weakseg_ros.data.expressions import Expression, mirrored, read_expressions
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.bundle_place import INFO_FILE
from weakseg_ros.deploy.engines.torch import load_graph, rules_of, stores_half
from weakseg_ros.deploy.frontends import FrontendSettings, make_frontend
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.deploy.superpoints import find_superpoints
from weakseg_ros.deploy.vocabulary import UNKNOWN, Vocabulary, words_of
from weakseg_ros.errors import DataError
from weakseg_ros.files import make_folder, write_atomic
from weakseg_ros.methods.referring.batch import ReferringBatch
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.nets.heads.referring import ReferringHead
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.lift import lift
from weakseg_ros.points.superpoints import Superpoints, describe
from weakseg_ros.progress import Progress
from weakseg_ros.train.export import export_bundle

T = TypeVar("T")

CACHE_FORMAT = 1
"""changed where superpoints are made otherwise, so that older ones on disk are not taken"""
LEAST_ALIKE = 0.1
"""IoU of a superpoint that stands for an object which fills no superpoint by half"""
FEWEST_USES = 2
"""how often a word must be said to be in the vocabulary"""
MOST_TURN_RAD = 0.1
TURNS = 4
"""ways in which a scan is turned in strong views, as it is and mirrored"""
DROPPED, DROPPED_WORDS = 0.15, 0.08
"""share of the superpoints, and of the words, that a strong view leaves out"""


@dataclass(frozen=True)
class EncodedScan:
    """The superpoints of a scan and how its true objects lie in them."""

    superpoints: Superpoints
    points: NDArray[np.int64]
    """(S,) points of the cloud in each superpoint"""
    instances: NDArray[np.int64]
    """(M,) the true objects"""
    whole: NDArray[np.int64]
    """(M,) points of each in the cloud"""
    inside: NDArray[np.int64]
    """(M, S) points of each in each superpoint"""

    @classmethod
    def counted(cls, superpoints: Superpoints, of_point: NDArray[np.signedinteger[Any]], instance_id: NDArray[np.uint16]) -> Self:
        """From the superpoint (N,) of each point, -1 = none, and its true object (N,), 0 = none."""
        instances, number = np.unique(instance_id, return_inverse=True)
        width = len(superpoints) + 1
        table = np.bincount(number * width + of_point + 1, minlength=len(instances) * width).reshape(len(instances), width)
        objects = instances > 0
        return cls(
            superpoints,
            points=table[:, 1:].sum(axis=0),
            instances=instances[objects].astype(np.int64),
            whole=table[objects].sum(axis=1),
            inside=table[objects, 1:],
        )

    def shared(self, instances: Sequence[int]) -> NDArray[np.int64]:
        """(S,) points of these objects in each superpoint."""
        shared: NDArray[np.int64] = self.inside[np.isin(self.instances, instances)].sum(axis=0)
        return shared

    def covered(self, instances: Sequence[int]) -> NDArray[np.bool_]:
        """(S,) superpoints more than half of which is of these objects; where there is none, the one that is most alike."""
        shared = self.shared(instances)
        covered = 2 * shared > self.points
        if covered.any() or not shared.any():
            return covered
        iou = shared / (self.points + self.whole[np.isin(self.instances, instances)].sum() - shared)
        nearest: NDArray[np.bool_] = (iou == iou.max()) & (iou >= LEAST_ALIKE)
        return nearest

    def iou(self, chosen: NDArray[np.bool_], instances: Sequence[int]) -> float:
        """IoU over the points of the cloud of the chosen superpoints (S,) with these objects; 0 where both are empty."""
        shared = int(self.shared(instances)[chosen].sum())
        union = int(self.points[chosen].sum()) + int(self.whole[np.isin(self.instances, instances)].sum()) - shared
        return shared / union if union else 0.0


def encode_scan(segmenter: Segmenter, cloud: Cloud, instance_id: NDArray[np.uint16]) -> EncodedScan:
    """A cloud as a bundle's network sees it, with the true instance (N,) of each point, 0 = none."""
    answer = segmenter.run(cloud)
    assert answer.seen is not None, "the segmenter was told to keep what it saw"
    info = segmenter.bundle.info
    found = find_superpoints(answer, cloud.xyz, info.labels, info.input.geometry.full_circle)
    of_point = lift(found.image, answer.seen.pixels, -1)
    return EncodedScan.counted(found.superpoints, of_point, instance_id)


def with_head(bundle: Bundle, head: ReferringHead | None, folder: Path, clouds: Sequence[Cloud], **facts: Any) -> Bundle:
    """The bundle with this referring head, None: a fresh one, in place of its own, at `folder`; its net is as it was.

    `clouds` are what the files are compared with torch on; `facts` are changed in its info. Its variants are left out.
    """
    graph, info = load_graph(bundle), bundle.info
    own = [each for each in (() if graph.heads is None else graph.heads.each) if each.name != ReferringHead.name]
    heads = Heads([*own, head or ReferringHead.behind(graph.net, info.labels.num_classes)]).eval()
    frontend = make_frontend(info.input, info.labels)
    frontend.settings = FrontendSettings(allow_no_intensity=True)
    images = np.concatenate([frontend.encode(cloud)[0]["image"] for cloud in clouds])
    fresh: dict[str, Any] = {"outputs": {}, "files": {}, "parity": {}, "content_hash": "", "name": folder.name}
    info = dataclasses.replace(info, heads=rules_of(heads), **{**fresh, **facts})
    return export_bundle(graph.net, info, folder, images, stores_half(bundle), heads)


def open_encoder(bundle: Bundle, place: Path, cloud: Cloud) -> Segmenter:
    """A segmenter that keeps what it sees; a bundle without a referring head is copied to `place` with a fresh one, once."""
    if any(head.name == ReferringHead.name for head in bundle.info.heads):
        told = bundle
    else:
        told = Bundle.load(place) if (place / INFO_FILE).is_file() else with_head(bundle, None, place, [cloud])
    segmenter = Segmenter(told, "onnxruntime", watch="never", allow_no_intensity=True)
    segmenter.settings.refer = True
    return segmenter


def place_of(cache: Path, bundle: Bundle, folder: Path, rows: Sequence[Expression]) -> Path:
    """The file of a scan as a bundle sees it; `rows` are what is said of it, which tells it from others of the same name."""
    said = [str(folder.resolve()), *(f"{row.text} {row.targets}" for row in rows)]
    known = sha256("\n".join(said).encode()).hexdigest()[:12]
    return cache / f"{bundle.content_hash[:16]}-{CACHE_FORMAT}" / f"{rows[0].scan}-{known}.npz"


class ReferringData:
    """Expressions of a folder of scans, each scan encoded by one bundle. The network runs where a scan is not kept yet."""

    def __init__(self, folder: Path, bundle: Bundle, cache: Path) -> None:
        self.name = str(folder)
        self.expressions = read_expressions(folder)
        self.scans = self._encoded(folder, bundle, cache)

    def __len__(self) -> int:
        return len(self.expressions)

    @cached_property
    def paraphrases(self) -> dict[int, list[int]]:
        """The expressions of each group."""
        return _numbers_by(row.group for row in self.expressions)

    @cached_property
    def by_scan(self) -> dict[str, list[int]]:
        """The expressions of each scan."""
        return _numbers_by(row.scan for row in self.expressions)

    def can_be_found(self, number: int) -> bool:
        """Whether an expression means nothing, or something that any superpoint holds; others would teach to find nothing."""
        row = self.expressions[number]
        return not row.targets or bool(self.scans[row.scan].covered(row.targets).any())

    def vocabulary(self) -> Vocabulary:
        """The words that are said at least FEWEST_USES times, the commonest first."""
        uses = Counter(word for row in self.expressions for text in (row.text, mirrored(row.text)) for word in words_of(text))
        return Vocabulary([word for word, count in uses.most_common() if count >= 2 * FEWEST_USES])

    def _encoded(self, folder: Path, bundle: Bundle, cache: Path) -> dict[str, EncodedScan]:
        rows = {key: [self.expressions[number] for number in numbers] for key, numbers in self.by_scan.items()}
        places = {key: place_of(cache, bundle, folder, said) for key, said in rows.items()}
        missing = [key for key, place in places.items() if not place.is_file()]
        if missing:
            scans = open_scans(folder)
            for place in {places[key].parent for key in missing}:
                make_folder(place)
            number = {key: i for i, key in enumerate(scans.keys)}
            segmenter = open_encoder(bundle, cache / f"encoder-{bundle.content_hash[:16]}", scans[0].cloud)
            for key in Progress(missing, what="encode", unit="scan"):
                if key not in number:
                    raise DataError(f"{folder}: an expression is about scan '{key}', which does not exist; write both again")
                scan = scans[number[key]]
                if scan.instance_id is None:
                    raise DataError(f"{folder}: scan '{key}' has no instances, so no expression can have an answer in it")
                save_scan(places[key], encode_scan(segmenter, scan.cloud, scan.instance_id))
        return {key: _load(place) for key, place in places.items()}


class Views:
    """Makes batches of a data set's expressions: plainly, or as a strong view in which what is meant stays the same.

    All that a batch is made of is worked out once, so that making one costs little against learning from it.
    """

    def __init__(self, data: ReferringData, vocabulary: Vocabulary, rng: np.random.Generator) -> None:
        self.data, self.vocabulary, self.rng = data, vocabulary, rng
        scans, rows = list(data.scans.values()), data.expressions
        place = {key: number for number, key in enumerate(data.scans)}
        self._most = max(map(len, (scan.superpoints for scan in scans)))
        self._scan = np.array([place[row.scan] for row in rows])
        self._points = np.stack([self._padded(scan.points.astype(np.float32)) for scan in scans])
        self._there = np.stack([np.arange(self._most) < len(scan.superpoints) for scan in scans])
        self._plain = np.stack([self._padded(describe(scan.superpoints)) for scan in scans])[:, None]
        self._tokens = np.stack([[vocabulary.read(text).tokens for text in (row.text, mirrored(row.text))] for row in rows])
        meant = [self._meant(row) for row in rows]
        self._target, self._reference = (np.stack(masks) for masks in zip(*meant, strict=True))

    @cached_property
    def _turned(self) -> NDArray[np.float32]:
        """(N, 2 * TURNS, S, F) the scans as strong views show them: turned a little, the second half mirrored."""
        rng = np.random.default_rng([len(self.data.scans), 0x7A])
        tables = []
        for scan in self.data.scans.values():
            for each in (scan.superpoints, scan.superpoints.mirrored()):
                angles = rng.uniform(-MOST_TURN_RAD, MOST_TURN_RAD, TURNS)
                tables += [self._padded(describe(each.turned(float(angle)))) for angle in angles]
        return np.stack(tables).reshape(len(self.data.scans), 2 * TURNS, self._most, -1)

    def batch(self, chosen: Sequence[int], strong: bool, thinned: bool = False) -> ReferringBatch:
        """The chosen expressions; a strong view mirrors and turns the scans, and rewords the expressions.

        `thinned` leaves superpoints out, too. What has a mask is not thinned out, as what is meant may be missing then.
        """
        numbers = np.asarray(chosen)
        scans, of_scan = np.unique(self._scan[numbers], return_inverse=True)
        view = self.rng.integers(2 * TURNS, size=len(scans)) if strong else np.zeros(len(scans), np.int64)
        there = self._there[scans]
        most = int(there.sum(axis=1).max(initial=1))
        there = there[:, :most]
        if thinned:
            there = there & (self.rng.random(there.shape) >= DROPPED)
            there[:, 0] = True
        tables = self._turned if strong else self._plain
        return ReferringBatch(
            superpoints=torch.from_numpy(tables[scans, view][:, :most]),
            there=torch.from_numpy(there),
            points=torch.from_numpy(self._points[scans][:, :most]),
            tokens=torch.from_numpy(self._said(numbers, view[of_scan] >= TURNS, strong)),
            scan=torch.from_numpy(of_scan),
            target=torch.from_numpy(self._target[numbers][:, :most].astype(np.float32)),
            reference=torch.from_numpy(self._reference[numbers][:, :most]),
            present=torch.tensor([float(bool(self.data.expressions[number].targets)) for number in numbers]),
            keys=tuple(map(str, numbers)),
        )

    def pair(self, chosen: Sequence[int]) -> tuple[ReferringBatch, ReferringBatch]:
        """The strong and the weak view of the same expressions."""
        return self.batch(chosen, strong=True, thinned=True), self.batch(chosen, strong=False)

    def _said(self, numbers: NDArray[np.int64], flipped: NDArray[np.bool_], strong: bool) -> NDArray[np.int64]:
        """(B, T) the expressions' words, or in a strong view those of paraphrases, some of them not understood."""
        if not strong:
            plain: NDArray[np.int64] = self._tokens[numbers, 0]
            return plain
        alike = [self.data.paraphrases[self.data.expressions[number].group] for number in numbers]
        numbers = np.array([each[int(self.rng.integers(len(each)))] for each in alike])
        tokens = self._tokens[numbers, flipped.astype(np.int64)]
        return np.where((tokens > 0) & (self.rng.random(tokens.shape) < DROPPED_WORDS), UNKNOWN, tokens)

    def _meant(self, row: Expression) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        scan = self.data.scans[row.scan]
        target = scan.covered(row.targets)
        reference = np.where(target, 1.0, 0.5 * scan.covered((*row.context, *row.confusable)))
        return self._padded(target), self._padded(reference.astype(np.float32))

    def _padded(self, table: NDArray[Any]) -> NDArray[Any]:
        return np.pad(table, [(0, self._most - len(table)), *[(0, 0)] * (table.ndim - 1)])


def _numbers_by(keys: Iterable[T]) -> dict[T, list[int]]:
    """The numbers of the items that have each key."""
    found: dict[T, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        found[key].append(number)
    return found


def save_scan(path: Path, scan: EncodedScan) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {field.name: getattr(scan.superpoints, field.name) for field in dataclasses.fields(Superpoints)}
    counts = {name: getattr(scan, name) for name in ("instances", "whole", "inside")}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **counts, all_points=scan.points)
    write_atomic(path, buffer.getvalue())


def _load(path: Path) -> EncodedScan:
    try:
        with open_archive(path) as arrays:
            superpoints = Superpoints(**{field.name: arrays[field.name] for field in dataclasses.fields(Superpoints)})
            counts = {name: arrays[name] for name in ("instances", "whole", "inside")}
            return EncodedScan(superpoints, points=arrays["all_points"], **counts)
    except (OSError, ValueError, KeyError):
        raise DataError(f"{path}: cannot be read; remove it, and the scan is encoded again") from None
