# SPDX-License-Identifier: Apache-2.0
"""The node's parts that need no ROS: mailbox, worker, transport profile, settings, command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from support import PATIENCE_S, optional
from weakseg_ros.config import field_docs
from weakseg_ros.errors import ConfigError
from weakseg_ros.ros.params import FIELDS, GROUPS, NodeConfig, explain
from weakseg_ros.ros.params_files import files_for_others
from weakseg_ros.ros.reference import PAGE, PARAMETER_FILE, page, parameter_file
from weakseg_ros.ros.transport import PROFILE, PROFILE_VARIABLES, apply_transport, profile_variables, transport_variables
from weakseg_ros.ros.worker import Mailbox, Worker


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "weakseg_ros", "node", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env={**os.environ, **environment})


# mailbox and worker


def test_the_newest_item_wins() -> None:
    box: Mailbox[int] = Mailbox()
    assert [box.put(i) for i in range(3)] == [False, True, True]
    assert box.take() == 2
    assert not box.put(3)


def test_with_a_capacity_everything_arrives_in_order_and_the_sender_waits() -> None:
    box: Mailbox[int] = Mailbox(capacity=2)
    sent: list[int] = []

    def send() -> None:
        for i in range(50):
            assert not box.put(i)
            sent.append(i)

    sender = threading.Thread(target=send)
    sender.start()
    received = [box.take()]
    assert len(sent) <= 4  # two in the box, one taken, one on its way
    received += [box.take() for _ in range(49)]
    sender.join()
    assert received == list(range(50))


def test_closing_wakes_whoever_waits() -> None:
    full: Mailbox[int] = Mailbox(capacity=1)
    full.put(1)
    empty: Mailbox[int] = Mailbox()
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(full.put(2))),
        threading.Thread(target=lambda: results.append(empty.take())),
    ]
    for thread in threads:
        thread.start()
    full.close()
    empty.close()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert sorted(map(str, results)) == ["False", "None"]
    assert full.take() is None, "what waited is dropped"


def test_the_end_of_the_process_waits_for_no_full_box() -> None:
    """A signal sets the event and wakes nobody; with an engine that hangs, nobody ever takes an item again."""
    ending = threading.Event()
    full: Mailbox[int] = Mailbox(capacity=1, ending=ending)
    full.put(1)
    sender = threading.Thread(target=full.put, args=(2,), daemon=True)
    sender.start()
    ending.set()
    sender.join(PATIENCE_S)
    assert not sender.is_alive()
    assert full.take() == 1


def test_a_stopped_worker_has_finished_its_item_and_takes_no_other() -> None:
    started, release, done = threading.Event(), threading.Event(), []

    def work(item: int) -> None:
        started.set()
        release.wait(5)
        done.append(item)

    worker: Worker[int] = Worker(work, Mailbox())
    worker.mailbox.put(1)
    started.wait(5)
    worker.mailbox.put(2)
    threading.Timer(0.05, release.set).start()
    worker.stop()
    assert done == [1]


# transport


def test_the_profile_is_one_large_segment_beside_udp() -> None:
    space = {"f": "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"}
    root = ElementTree.parse(PROFILE).getroot()
    kinds = {t.findtext("f:type", None, space): t for t in root.iterfind(".//f:transport_descriptor", space)}
    assert set(kinds) == {"SHM", "UDPv4"}
    assert kinds["SHM"].findtext("f:segment_size", None, space) == str(16 * 2**20)
    assert root.findtext(".//f:useBuiltinTransports", None, space) == "false"
    assert root.find("f:participant", space).get("is_default_profile") == "true"


def test_settings_of_the_user_are_left_alone() -> None:
    assert transport_variables({}) == dict.fromkeys(profile_variables(), str(PROFILE))
    for name in (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS"):
        assert transport_variables({name: "mine"}) == {}


def test_what_fast_dds_will_not_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, (now, before) = tmp_path / "own.xml", PROFILE_VARIABLES
    monkeypatch.setenv("ROS_DISTRO", "kilted")
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(before, str(own))
    assert f"{before} is set, and this release of ROS 2 does not read it; set {now} instead" in apply_transport()
    monkeypatch.setenv(now, str(own))
    assert f"{now} names {own}, which is no file, so Fast DDS uses its defaults" in apply_transport()
    own.touch()
    assert apply_transport() == f"transport: {now} is set, so your own settings are used"


@pytest.mark.parametrize(
    ("distro", "rclpy", "expected"),
    [
        ("humble", "", PROFILE_VARIABLES[1:]),
        ("jazzy", "7.1.6", PROFILE_VARIABLES[1:]),
        ("kilted", "9.1.2", PROFILE_VARIABLES[:1]),
        ("lyrical", "", PROFILE_VARIABLES[:1]),
        ("", "7.1.6", PROFILE_VARIABLES[1:]),
        ("", "9.1.2", PROFILE_VARIABLES[:1]),
        ("", "", PROFILE_VARIABLES),
    ],
)
def test_only_the_variable_that_fast_dds_reads_is_set(distro: str, rclpy: str, expected: tuple[str, ...]) -> None:
    """Kilted's Fast DDS warns at every start of the older name."""
    assert profile_variables(distro, rclpy) == expected


# settings


def test_the_shipped_parameter_file_says_what_the_node_does_without_one(root: Path) -> None:
    assert (root / PARAMETER_FILE).read_text() == parameter_file(), "run: python -m weakseg_ros.ros.reference"
    content = yaml.safe_load((root / "config" / "segment.yaml").read_text())
    shipped = content["/**"]["ros__parameters"]
    for group in filter(None, GROUPS):
        shipped |= {f"{group}.{name}": value for name, value in shipped.pop(group).items()}
    plain = {name: list(f.default) if isinstance(f.default, tuple) else f.default for name, f in FIELDS.items()}
    assert shipped == {name: value for name, value in plain.items() if name != "autostart"}
    text = " ".join((root / "config" / "segment.yaml").read_text().replace("#", " ").split())
    assert all(explain(name) in text for name in shipped), "the comments are the fields' docstrings"


def test_the_page_of_topics_services_and_parameters_is_up_to_date(root: Path) -> None:
    assert (root / PAGE).read_text() == page(), "run: python -m weakseg_ros.ros.reference"


def test_every_setting_is_one_sentence() -> None:
    for name in FIELDS:
        assert re.fullmatch(r"['A-Z~].*[^.] \(.*\)\.", explain(name)), explain(name)


def test_every_setting_is_explained() -> None:
    for group, kind in GROUPS.items():
        own = {name.rpartition(".")[2] for name in FIELDS if name.rpartition(".")[0] == group}
        assert set(field_docs(kind)) == own | ({*GROUPS} - {""} if not group else set())


def test_engines_are_known_names_in_order() -> None:
    assert NodeConfig(engine="torch, onnxruntime").engines == ("torch", "onnxruntime")
    with pytest.raises(ConfigError, match="did you mean 'torch'"):
        NodeConfig(engine="auto,torhc")


# command line


def test_help_explains_every_setting_and_needs_no_ros() -> None:
    done = run("--help", PYTHONPATH=str(Path(__file__).parent / "no_such_folder"))
    assert done.returncode == 0
    for name in FIELDS:
        assert f"--{name.removeprefix('input.').replace('_', '-').replace('.', '-')}" in done.stdout
    assert "--input-topic" in done.stdout


def test_the_profile_can_be_asked_for() -> None:
    assert run("--print-transport-profile").stdout == f"{PROFILE}\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--mode", "lve"), "invalid choice: 'lve'"),
        (("--stale-after-s", "-1"), "stale_after_s: -1.0 is outside"),
        (("--publish-rgb", "maybe"), "expected true or false"),
        (("--config", "/no/such.yaml"), "cannot be read"),
        (("--bundel", "x"), "--bundel"),
        (("--input-topic", "/livox-points"), "--input-topic: '/livox-points' contains '-'"),
        (("--odometry-topic", "/odom/"), "odometry_topic: '/odom/' ends with '/'"),
    ],
)
def test_a_wrong_argument_is_exit_code_2_and_a_sentence(arguments: tuple[str, ...], text: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--params-file", "/no/such.yaml"), "/no/such.yaml"),
        (("--ros-args", "-p", "publish_rgb=true"), "publish_rgb=true"),
        (("--ros-args", "--nonsense"), "--nonsense"),
    ],
)
def test_an_argument_that_ros_refuses_is_exit_code_2_and_a_sentence(arguments: tuple[str, ...], text: str) -> None:
    optional("rclpy")
    done = run(*arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert "check the options, topics and files" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_wrapper_finds_the_package(root: Path) -> None:
    wrapper = root / "scripts" / "segment_node"
    assert os.access(wrapper, os.X_OK)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [wrapper, "--help"], capture_output=True, text=True, timeout=PATIENCE_S, env={**os.environ, "PATH": path}
    )
    assert (done.returncode, "--input-topic" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("content", "heard"),
    [
        ("weakseg: {ros__parameters: {a: 1}}", True),
        ("/weakseg: {ros__parameters: {a: 1}}", False),
        ("/front/weakseg: {ros__parameters: {a: 1}}", True),
        ("front: {weakseg: {ros__parameters: {a: 1}}}", True),
        ("/**: {ros__parameters: {a: 1}}", True),
        ("/*/weakseg: {ros__parameters: {a: 1}}", True),
        ("/*: {ros__parameters: {a: 1}}", False),
        ("other: {ros__parameters: {a: 1}}\n/**/weakseg: {ros__parameters: {a: 1}}", True),
        ("segmenter: {ros__parameters: {a: 1}}", False),
        ("[]", True),
    ],
)
def test_a_file_with_settings_of_other_nodes_only_is_told(tmp_path: Path, content: str, heard: bool) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text(content)
    node = "/weakseg" if content.startswith("weakseg") else "/front/weakseg"
    sentences = files_for_others(["--ros-args", "--params-file", str(file), "-r", "a:=b"], node)
    assert bool(sentences) != heard
    assert all(f"none of {node}, so all are ignored" in sentence for sentence in sentences)
