# SPDX-License-Identifier: Apache-2.0
"""What the launch file decides: names and values of arguments, names of nodes, when a dead node is started again."""

from __future__ import annotations

from pathlib import Path

import pytest

from weakseg_ros.errors import ConfigError
from weakseg_ros.ros import launching
from weakseg_ros.ros.launching import Respawning
from weakseg_ros.ros.params import FIELDS


def ours(*arguments: str) -> list[str]:
    return ["/opt/ros/jazzy/bin/ros2", "launch", "weakseg_ros", "segment.launch.py", *arguments]


def test_an_unknown_argument_is_named_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"input_topc:=/a: segment.launch.py has no argument 'input_topc'; did you mean 'input_topic'\?"
    ):
        launching.check_names(ours("input_topc:=/a"))
    with pytest.raises(ConfigError, match=r"no argument 'intensity_scale'; it is now called input.intensity_scale"):
        launching.check_names(ours("intensity_scale:=0.1"))
    with pytest.raises(ConfigError, match="--show-args"):
        launching.check_names(ours("zzzzzz:=1"))


def test_known_arguments_pass_and_those_of_a_parent_are_its_own() -> None:
    launching.check_names(ours("min_confidence:=0.5", "log.folder:=/tmp", "autostart:=false", "sigterm_timeout:=20"))
    launching.check_names(["ros2", "launch", "robot", "robot.launch.py", "zzzzzz:=1"])


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("min_confidence", "0.5", 0.5),
        ("stale_after_s", "3", 3.0),
        ("threads", "4", 4),
        ("publish_rgb", "true", True),
        ("track_instances", "False", False),
        ("bundle", "12", "12"),
        ("log.max_frames", "7", 7),
        ("odometry_extrinsic", "1.2 0 1.8 0 0 0.1", "1.2 0 1.8 0 0 0.1"),
    ],
)
def test_values_get_the_type_of_their_parameter(name: str, text: str, value: object) -> None:
    found = launching.settings_of({name: text})
    assert found == {name: value}
    assert type(found[name]) is type(FIELDS[name].default)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("min_confidence", "much", "min_confidence:=much: expected a number"),
        ("min_confidence", "2.5", r"min_confidence:=2.5: 2.5 is outside 0.0..1.0"),
        ("threads", "1.5", "threads:=1.5: expected a whole number"),
        ("publish_rgb", "maybe", "publish_rgb:=maybe: expected true or false"),
        ("mode", "lve", r"mode:=lve: unknown value 'lve'; did you mean 'live'\?"),
        ("engine", "torhc", r"engine:=torhc: unknown engine 'torhc'; did you mean 'torch'\?"),
        ("odometry_extrinsic", "1 2 3", "odometry_extrinsic:=1 2 3: '1 2 3' is not six numbers"),
    ],
)
def test_a_bad_value_names_its_argument(name: str, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        launching.settings_of({name: text})


def test_a_wrong_word_names_its_argument() -> None:
    texts = {name: default for name, (default, _) in launching.ARGUMENTS.items()}
    launching.check_words(texts)
    with pytest.raises(ConfigError, match=r"^log_level:=wran: unknown value; did you mean 'warn'\?"):
        launching.check_words({**texts, "log_level": "wran"})


def test_names_that_ros_refuses_end_the_launch() -> None:
    texts = {name: default for name, (default, _) in launching.ARGUMENTS.items()}
    launching.check_places(texts)
    launching.check_places({**texts, "namespace": "/robot/front", "name": "seg", "input_topic": "~/points"})
    for name, text in (("input_topic", "/livox-points"), ("input_topic", ""), ("name", "weak-seg"), ("namespace", "front/")):
        with pytest.raises(ConfigError, match=f"^{name}: '{text}' "):
            launching.check_places({**texts, name: text})


def test_a_parameter_file_that_is_not_there_ends_the_launch(tmp_path: Path) -> None:
    shipped = tmp_path / "segment.yaml"
    shipped.write_text("")
    assert launching.parameters_of("", shipped) == shipped
    with pytest.raises(ConfigError, match=r"^params_file:=/no/such\.yaml: there is no such file"):
        launching.parameters_of("/no/such.yaml", shipped)


@pytest.mark.parametrize(
    ("namespaces", "full"),
    [
        (("", ""), "/weakseg"),
        (("", "front"), "/front/weakseg"),
        (("/robot", "front"), "/robot/front/weakseg"),
        (("/robot", "/front"), "/front/weakseg"),
        (("", "/"), "/weakseg"),
    ],
)
def test_the_name_of_the_node_is_that_of_ros(namespaces: tuple[str, ...], full: str) -> None:
    assert launching.full_name(namespaces, "weakseg") == full


def test_rviz_follows_name_and_frame(root: Path) -> None:
    shipped = (root / "launch" / "segment.rviz").read_text()
    text = launching.rviz_config(shipped, "/front/seg", "os_sensor")
    assert "/weakseg/" not in text
    assert text.count("Value: /front/seg/labels") == 2
    assert "Value: /front/seg/objects" in text
    assert "Fixed Frame: os_sensor" in text


def test_a_permanent_fault_is_not_started_again() -> None:
    respawning = Respawning(True, 10)
    assert not respawning.after(launching.PERMANENT, 1.0).again
    assert "permanent fault" in respawning.after(launching.PERMANENT, 1.0).text
    assert respawning.after(0, 1.0) == (False, "")


@pytest.mark.parametrize("code", [-9, -11, 1, 70])
def test_other_deaths_are_started_again_a_number_of_times_in_a_row(code: int) -> None:
    respawning = Respawning(True, 3)
    assert [respawning.after(code, 1.0).again for _ in range(4)] == [True, True, True, False]
    assert "respawn_max_retries is 3" in respawning.after(code, 1.0).text
    assert not Respawning(False, 3).after(code, 1.0).again
    assert not Respawning(True, 0).after(code, 1.0).again


def test_who_ran_long_begins_a_new_row_and_minus_one_never_ends() -> None:
    respawning = Respawning(True, 2)
    for _ in range(5):
        assert respawning.after(-11, 1.0).again
        assert respawning.after(-11, launching.STEADY_S).again
    endless = Respawning(True, -1)
    assert all(endless.after(-11, 0.1).again for _ in range(100))


def test_every_argument_of_its_own_is_one_that_the_node_does_not_have_except_autostart() -> None:
    assert set(launching.ARGUMENTS) & set(FIELDS) == {"autostart"}
