# SPDX-License-Identifier: Apache-2.0
"""Sensor models: which rays a LiDAR sends, and what it reports of what they meet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import check_ranges, load_yaml, setting
from weakseg_ros.errors import ConfigError, did_you_mean
from weakseg_ros.files import share_folder
from weakseg_ros.points.projection import RangeSpec


@dataclass(frozen=True)
class SensorModel:
    """Sets a spinning LiDAR: its beams, columns, reach and noise."""

    name: str = "generic64"
    """Sets the name of the sensor in manifests and reports."""
    beams: int = setting(64, 1, 512)
    """Sets the number of evenly spaced beams between fov_up_deg and fov_down_deg (1 to 512); inclinations_deg takes
    precedence."""
    fov_up_deg: float = setting(3.0, -90.0, 90.0)
    """Sets the inclination of the highest beam in degrees, positive above the horizon (-90 to 90)."""
    fov_down_deg: float = setting(-25.0, -90.0, 90.0)
    """Sets the inclination of the lowest beam in degrees, positive above the horizon (-90 to 90)."""
    inclinations_deg: tuple[float, ...] = ()
    """Lists the inclination of every beam in degrees, from highest to lowest, for sensors whose beams are not evenly spaced."""
    columns: int = setting(2048, 8, 16384)
    """Sets the number of shots per turn and beam (8 to 16384)."""
    fov_left_deg: float = setting(180.0, -180.0, 180.0)
    """Sets the azimuth of the first column's left edge in degrees (-180 to 180)."""
    fov_right_deg: float = setting(-180.0, -180.0, 180.0)
    """Sets the azimuth of the last column's right edge in degrees (-180 to 180)."""
    rows: str = "angle"
    """Selects how points get their row in a range image: 'angle', or 'ring' for beams that are not evenly spaced."""
    range_min_m: float = setting(1.0, 0.1, 20.0)
    """Sets the range in metres below which surfaces give no return (0.1 to 20)."""
    range_max_m: float = setting(100.0, 5.0, 400.0)
    """Sets the range in metres above which surfaces give no return (5 to 400); dark and oblique surfaces are lost earlier."""
    rate_hz: float = setting(10.0, 0.5, 100.0)
    """Sets the rotation rate in turns per second (0.5 to 100)."""
    mount_height_m: float = setting(1.75, 0.2, 10.0)
    """Sets the mounting height above the road in metres (0.2 to 10)."""
    range_noise_m: float = setting(0.015, 0.0, 1.0)
    """Sets the standard deviation of the measured range in metres (0 to 1)."""
    drop_probability: float = setting(0.03, 0.0, 1.0)
    """Sets the fraction of rays that are lost at random (0 to 1)."""
    vehicle_m: tuple[float, float, float] = (4.4, 1.8, 0.95)
    """Sets the length, width and height above the road, in metres, of the bonnet and boot that hide the ground below the
    sensor; 0, 0, 0 means none."""
    beam_spread: float = setting(0.08, 0.0, 1.0)
    """Sets the standard deviation of the brightness between beams (0 to 1)."""
    intensity_full_scale: float = setting(1.0, 1e-3, 1e6)
    """Sets the largest intensity that the driver reports (0.001 to 1000000), such as 1, 255 or several thousand."""
    intensity_gain: float = setting(1.0, 0.0, 100.0)
    """Sets the factor on the intensity of every surface (0 to 100)."""
    intensity_falloff: float = setting(0.0, 0.0, 2.0)
    """Sets the power of 10 m / range that remains in the driver's intensity (0 to 2); 0 means that the driver compensates it
    fully."""

    def __post_init__(self) -> None:
        check_ranges(self)
        inclinations = np.array(self.inclinations_deg)
        if len(inclinations) and (np.diff(inclinations) >= 0).any():
            raise ConfigError("inclinations_deg: must be sorted from the highest beam to the lowest")
        if not len(inclinations) and self.beams > 1 and self.fov_up_deg <= self.fov_down_deg:
            raise ConfigError(f"fov_up_deg: {self.fov_up_deg} must lie above fov_down_deg {self.fov_down_deg}")
        if self.rows not in ("angle", "ring"):
            raise ConfigError(f"rows: unknown '{self.rows}'{did_you_mean(self.rows, ('angle', 'ring'))}; known: angle, ring")
        if self.range_max_m <= self.range_min_m:
            raise ConfigError(f"range_max_m: {self.range_max_m} must exceed range_min_m {self.range_min_m}")
        if self.fov_left_deg <= self.fov_right_deg:
            raise ConfigError(f"fov_left_deg: {self.fov_left_deg} must lie left of (above) fov_right_deg {self.fov_right_deg}")

    @property
    def beams_deg(self) -> NDArray[np.float64]:
        """(H,) inclination of every beam, falling."""
        return (
            np.array(self.inclinations_deg)
            if self.inclinations_deg
            else np.linspace(self.fov_up_deg, self.fov_down_deg, self.beams)
        )

    def range_spec(self, columns: int | None = None) -> RangeSpec:
        """The range image with one row per beam and one column per shot, its edges half a beam beyond the outermost ones."""
        beams = self.beams_deg
        half = (beams[0] - beams[-1]) / max(len(beams) - 1, 1) / 2 if len(beams) > 1 else 1.0
        return RangeSpec(
            height=len(beams),
            width=columns or self.columns,
            fov_up_deg=float(beams[0] + half),
            fov_down_deg=float(beams[-1] - half),
            fov_left_deg=self.fov_left_deg,
            fov_right_deg=self.fov_right_deg,
            min_range_m=0.0,
            max_range_m=self.range_max_m * 1.1,
            rows=self.rows,  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class Shift:
    """Sets the effect of bad weather, night or an aged sensor; the defaults change nothing."""

    intensity_gain: float = setting(1.0, 0.0, 10.0)
    """Sets an additional factor on the intensity (0 to 10)."""
    intensity_gamma: float = setting(1.0, 0.1, 10.0)
    """Sets the exponent applied to the intensity as a fraction of full scale (0.1 to 10)."""
    extra_drop: float = setting(0.0, 0.0, 1.0)
    """Sets the additional fraction of rays that are lost (0 to 1)."""
    extra_noise_m: float = setting(0.0, 0.0, 2.0)
    """Sets the additional standard deviation of the range in metres (0 to 2)."""
    attenuation_per_m: float = setting(0.0, 0.0, 0.2)
    """Sets the two-way extinction by fog or rain per metre (0 to 0.2); 0.01 corresponds to a visual range of about 300 m."""
    clutter: float = setting(0.0, 0.0, 1.0)
    """Sets the fraction of rays that are stopped by raindrops or snowflakes close to the sensor (0 to 1); these points get raw id
    1, outlier."""

    def __post_init__(self) -> None:
        check_ranges(self)


def load_sensor(name: str | Path) -> SensorModel:
    """A sensor model by the name of its file in config/sensors, or by the path of a YAML file of one's own."""
    folder = share_folder() / "config" / "sensors"
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        raise ConfigError(
            f"sensor: unknown '{name}'{did_you_mean(str(name), known)}; known: {', '.join(known)}, or the path of a YAML file"
        )
    return load_yaml(SensorModel, path)
