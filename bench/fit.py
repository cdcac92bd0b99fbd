# SPDX-License-Identifier: Apache-2.0
"""Does the fit tell where a model's answers are right? Fit against accuracy over real and simulated sets, sound and spoilt.

    python bench/fit.py DATA --bundle models/street64 --out runs/fit

DATA holds `semantickitti_range`, `semantickitti_seq00` and `vlp32_drive`, as far as they are there; simulated sensors are
added. Each set is taken as it is, and some of them also upside down, in millimetres, with another intensity, lowered, raised,
tilted, thinned, mirrored, shrunk or noisy. Written are fit.json and fit.png; printed are Spearman's rank correlation, and the
sets whose fit is above 0.7 although less than half of their points are right.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.environment import environment
from weakseg_ros.errors import CloudError, WeaksegError
from weakseg_ros.measure.inputs import open_input
from weakseg_ros.points.cloud import Cloud, flags_of
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.reading import rotation
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor

HIGH_FIT, HALF = 0.7, 0.5
REAL = {"semantickitti_range": 1, "semantickitti_seq00": 1, "vlp32_drive": 28}
"""folders, and which of their labelled scans are taken: each, or every so-manieth"""
SPOILT_EVERY = 5
SENSORS = ("hdl64e", "os1_64", "os1_128", "os0_32", "vlp16", "vlp32c", "generic64", "yard16")
SPOILT_SENSORS = ("os1_64", "vlp16")
CHOSE_WEIGHTS = ("hdl64e", "os1_128", "vlp16", "generic64")
COLUMNS, SEED = 1024, 900


class Labelled(NamedTuple):
    """One set: a scan and its truth."""

    name: str
    cloud: Cloud
    truth: NDArray[np.uint8]
    spoilt: bool
    """it is also tried in each other way"""


def chose_weights(name: str) -> bool:
    """Whether a set is of the half that the weights of deploy/fit.py were chosen on: even scans of the street, some sensors."""
    kind, _, number = name.partition(" ")
    if kind == "semantickitti_range":
        return int(number.rpartition("/")[2]) % 2 == 0
    return number in CHOSE_WEIGHTS


def _moved(cloud: Cloud, xyz: NDArray[Any]) -> Cloud:
    placed = np.where(cloud.valid[:, None], xyz, 0.0).astype(np.float32)  # a non-return stays at the origin
    return dataclasses.replace(cloud, xyz=placed, flags=flags_of(placed))


def _turned(roll: float, pitch: float, yaw: float) -> Callable[[Cloud], Cloud]:
    return lambda cloud: _moved(cloud, cloud.xyz @ rotation(roll, pitch, yaw).T)


def _shifted(up_m: float) -> Callable[[Cloud], Cloud]:
    return lambda cloud: _moved(cloud, cloud.xyz + np.array([0.0, 0.0, up_m]))


def _times(factor: NDArray[Any] | float) -> Callable[[Cloud], Cloud]:
    return lambda cloud: _moved(cloud, cloud.xyz * factor)


def _brighter(change: Callable[[NDArray[np.float32]], Any]) -> Callable[[Cloud], Cloud]:
    return lambda cloud: dataclasses.replace(cloud, intensity=np.asarray(change(cloud.intensity), np.float32))


def _thinned(keep_every: int) -> Callable[[Cloud], Cloud]:
    """Rows of the image by angle, of 64 rows over what the sensor sees."""

    def thin(cloud: Cloud) -> Cloud:
        inclination = np.arctan2(cloud.xyz[:, 2], np.hypot(cloud.xyz[:, 0], cloud.xyz[:, 1]))
        low, high = np.quantile(inclination[cloud.valid], (0.003, 0.997))
        row = ((inclination - low) / max(high - low, 1e-6) * 64).astype(int)
        return _moved(cloud, np.where((row % keep_every == 0)[:, None], cloud.xyz, 0.0))

    return thin


def _noisy(cloud: Cloud) -> Cloud:
    return _moved(cloud, cloud.xyz + np.random.default_rng(0).normal(0, 0.3, cloud.xyz.shape))


WAYS: dict[str, Callable[[Cloud], Cloud]] = {
    "as it is": lambda cloud: cloud,
    "upside down": _turned(180, 0, 0),
    "optical frame": _turned(90, -90, 0),
    "millimetres": _times(1000.0),
    "half as large": _times(0.5),
    "mirrored": _times(np.array([1.0, -1.0, 1.0])),
    "intensity x 255": _brighter(lambda i: i * 255),
    "intensity x 65535": _brighter(lambda i: i * 65535),
    "intensity squared": _brighter(lambda i: i * i / max(float(i.max()), 1e-6)),
    "intensity 0": _brighter(np.zeros_like),
    "lowered 1.5 m": _shifted(-1.5),
    "base_link": _shifted(1.7),
    "pitched 5 deg": _turned(0, 5, 0),
    "pitched 12 deg": _turned(0, 12, 0),
    "rolled 30 deg": _turned(30, 0, 0),
    "half the rows": _thinned(2),
    "a quarter of the rows": _thinned(4),
    "0.3 m noise": _noisy,
}


def labelled_sets(data: Path, labels: LabelMap) -> Iterator[Labelled]:
    """The scans of DATA, then those of the simulator."""
    for folder, every in REAL.items():
        try:
            source = open_input(data / folder, labels)
        except WeaksegError as error:
            print(f"left out: {error}")
            continue
        for item in source:
            if item.truth is not None and item.truth.any() and item.index % every == 0:
                number = item.index // every
                yield Labelled(f"{folder} {item.key}", item.cloud, item.truth, number % SPOILT_EVERY == 0)
    for number, name in enumerate(SENSORS):
        sensor = load_sensor(name)
        sensor = dataclasses.replace(sensor, columns=min(sensor.columns, COLUMNS))
        for scan in simulate(SimulateConfig(seed=SEED + number, scans=1, stride=10, sensor=sensor)):
            yield Labelled(f"simulated {name}", scan.cloud, labels.to_class(scan.raw_label), name in SPOILT_SENSORS)


def measure_all(data: Path, bundle: Bundle) -> list[dict[str, Any]]:
    """A row for each set and way: its accuracy, its fit and the parts of that."""
    segmenter = Segmenter(bundle, allow_no_intensity=True)
    rows = []
    for labelled in tqdm(labelled_sets(data, bundle.labels), unit="set", disable=None):
        for way in WAYS if labelled.spoilt else ("as it is",):
            segmenter.forget()
            cloud = WAYS[way](labelled.cloud)
            try:
                answer = segmenter.run(cloud)
            except CloudError as error:
                print(f"left out: {labelled.name}, {way}: {error}")
                continue
            known, fit = (labelled.truth > 0) & cloud.valid, segmenter.fit()  # what a way takes away is not asked for
            right = float(np.mean(answer.class_id[known] == labelled.truth[known]))
            rows.append({"set": labelled.name, "way": way, "accuracy": right, "fit": fit.to_mapping() if fit else None})
    return rows


def draw(rows: list[dict[str, Any]], rho: float, path: Path, title: str) -> None:
    """The scatter, with a colour for each kind of set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 6.0))
    for kind in dict.fromkeys(row["set"].split()[0] for row in rows):
        own = [row for row in rows if row["set"].startswith(kind)]
        axes.scatter([row["fit"]["value"] for row in own], [row["accuracy"] for row in own], s=16, alpha=0.7, label=kind)
    axes.axvspan(HIGH_FIT, 1.0, ymax=HALF, color="red", alpha=0.08)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="fit", ylabel="share of labelled points right")
    axes.set_title(f"{title}: {len(rows)} sets, Spearman {rho:.2f}")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> int:
    """Exit code 1 where a set of a high fit is mostly wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", default="models/street64")
    parser.add_argument("--out", type=Path, default=Path("runs/fit"))
    options = parser.parse_args()
    from scipy.stats import spearmanr

    bundle = Bundle.load(options.bundle)
    every = measure_all(options.data, bundle)
    rows = [row for row in every if row["fit"]]

    def rank(some: list[dict[str, Any]]) -> float:
        return float(spearmanr([row["fit"]["value"] for row in some], [row["accuracy"] for row in some])[0])

    rho = rank(rows)
    apart = [row for row in rows if not chose_weights(row["set"])]
    trusted_wrongly = [row for row in rows if row["fit"]["value"] > HIGH_FIT and row["accuracy"] < HALF]
    worst = sorted(rows, key=lambda row: row["accuracy"] - row["fit"]["value"])[:10]
    options.out.mkdir(parents=True, exist_ok=True)
    facts = {"bundle": bundle.name, "hash": bundle.content_hash, "spearman": rho, "seed": SEED, "environment": environment()}
    facts |= {"spearman_kept_apart": rank(apart), "sets_kept_apart": len(apart)}
    facts |= {"sets": len(rows), "without_fit": len(every) - len(rows), "trusted_wrongly": len(trusted_wrongly)}
    (options.out / "fit.json").write_text(json.dumps({**facts, "rows": every}, indent=1) + "\n")
    draw(rows, rho, options.out / "fit.png", bundle.name)
    print(f"{bundle.name}: {len(rows)} sets, Spearman's rank correlation of fit and accuracy {rho:.3f}")
    print(f"of these, {len(apart)} sets that did not choose the weights: {facts['spearman_kept_apart']:.3f}")
    print(f"fit above {HIGH_FIT:g} and accuracy below {HALF:g}: {len(trusted_wrongly)}")
    for row in worst:
        print(f"  fit {row['fit']['value']:.2f}, accuracy {row['accuracy']:.2f}: {row['set']}, {row['way']}")
    return 1 if trusted_wrongly else 0


if __name__ == "__main__":
    raise SystemExit(main())
