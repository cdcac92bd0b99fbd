# SPDX-License-Identifier: Apache-2.0
"""What bench/fuzz.py feeds to whatever reads: good examples, bytes mutated from them, and clouds that nobody sane would send."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.deploy.bundle import KIND_ONNX, Bundle, BundleInfo, NetRule, write_bundle
from weakseg_ros.deploy.input_spec import IntensityRule, plain_spec
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec

SPLICES = (b"", b"\0", b"\xff" * 8, b"\x7f\xff\xff\xff", b"*a", b"&a", b"{", b"[", b"!!int ''", b"\x1b]0;x\x07", b"1e999", b"-1")


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Bytes with a few of them changed, doubled, cut, moved or replaced by something that often matters."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, kind = rng.randrange(len(data) + 1), rng.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 1 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[at : at + rng.choice((1, 4, 64))]
        elif kind == 3:
            data[at:at] = data[at : at + rng.choice((1, 4, 64))]
        elif kind == 4:
            data[at : at + rng.choice((0, 4))] = rng.choice(SPLICES)
        elif kind == 5 and rng.random() < 0.1:
            del data[at:]
    return bytes(data)


def serialized_clouds() -> tuple[bytes, ...]:
    """Small clouds in many sound layouts and both byte orders, as DDS carries them."""
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    kinds, rng = store.types, random.Random(0)

    def serialized(parts: Message) -> bytes:
        stamp = kinds["builtin_interfaces/msg/Time"](sec=1, nanosec=2)
        fields = [kinds["sensor_msgs/msg/PointField"](**vars(field)) for field in parts.fields]
        header = kinds["std_msgs/msg/Header"](stamp=stamp, frame_id="lidar")
        cloud = kinds["sensor_msgs/msg/PointCloud2"](**{**vars(parts), "header": header, "fields": fields})
        return bytes(store.serialize_cdr(cloud, "sensor_msgs/msg/PointCloud2", little_endian=rng.random() < 0.8))

    return tuple(serialized(sound_message(rng)) for _ in range(64))


def write_bag(path: Path) -> Path:
    """Three small clouds."""
    rng = np.random.default_rng(0)
    with CloudBagWriter(path, "/points") as writer:
        for number in range(3):
            writer.write(make_cloud(rng.normal(size=(20, 3)), rng.random(20), stamp_ns=number, frame_id="lidar"))
    return path


def tiny_bundle(folder: Path) -> Bundle:
    """A bundle whose model file is no model: only its reading is tried."""
    labels = LabelMap("two", tuple(LabelClass(i, f"class {i}", (i, i, i), False, (i,)) for i in range(3)))
    told = plain_spec(RangeSpec(16, 32), ("range",), IntensityRule(False))
    info = BundleInfo(name="tiny", input=told, labels=labels, net=NetRule("light"))
    return write_bundle(folder, info, {"model.onnx": (KIND_ONNX, b"model")}, "card\n")


def page_messages() -> tuple[bytes, ...]:
    """What a browser sends to the labelling page."""
    import msgspec

    update = {"type": "GuiUpdateMessage", "uuid": "00", "updates": {"value": 3.5}}
    camera = {"type": "ViewerCameraMessage", "wxyz": [1, 0, 0, 0], "position": [0, 0, 1], "fov": 1.0, "near": 0.1, "far": 9.0}
    camera |= {"look_at": [0, 0, 0], "up_direction": [0, 0, 1], "image_height": 10, "image_width": 10}
    share: dict[str, Any] = {"type": "ShareUrlRequest"}
    return tuple(msgspec.msgpack.encode(message) for message in (update, camera, share))


class Message:
    """A PointCloud2 as any library may give it."""

    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)


def wild_messages() -> st.SearchStrategy[Message]:
    """Layouts of any kind, few of them possible."""
    small = st.integers(0, 40)
    number = st.one_of(small, st.integers(0, 2**32 - 1))
    name = st.sampled_from(["x", "y", "z", "intensity", "ring", "i", "reflectivity", "", "\x1b[2J", "t"])
    field = st.builds(Message, name=name, offset=number, datatype=st.integers(0, 12), count=st.one_of(st.just(1), number))
    stamp = st.builds(Message, sec=st.integers(-(2**31), 2**31 - 1), nanosec=st.integers(0, 2**32 - 1))
    return st.builds(
        Message,
        header=st.builds(Message, stamp=stamp, frame_id=st.text(max_size=5)),
        height=number,
        width=number,
        fields=st.lists(field, max_size=7),
        is_bigendian=st.booleans(),
        point_step=number,
        row_step=number,
        data=st.binary(max_size=400).map(lambda blob: np.frombuffer(blob, np.uint8)),
        is_dense=st.booleans(),
    )


SIZES = (0, 1, 1, 2, 2, 4, 4, 4, 8)
"""bytes of a field by its datatype's number"""
FIELDS = ("intensity", "ring", "t", "time", "reflectivity", "i", "signal", "tag", "")
EXTREMES = (0, 1, 2, 3, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def sound_message(rng: random.Random) -> Message:
    """A cloud of up to nine points in a layout that drivers could send: any order, datatypes, gaps and padding."""
    names = ["x", "y", "z", *rng.sample(FIELDS, rng.randrange(4))]
    if rng.random() < 0.5:
        rng.shuffle(names)
    at, fields = rng.choice((0, 0, 0, 4, 7)), []
    for name in names:
        datatype = rng.choice((7, 7, 7, 8)) if name in "xyz" and name else rng.randrange(1, 9)
        fields.append(Message(name=name, offset=at, datatype=datatype, count=1))
        at += SIZES[datatype] + rng.choice((0, 0, 0, 1, 4))
    height, width = rng.choice((1, 1, 1, 2, 3)), rng.randrange(4)
    point_step = at + rng.choice((0, 0, 2, 16))
    row_step = width * point_step + rng.choice((0, 0, 0, 5))
    data = np.frombuffer(rng.randbytes(height * row_step), np.uint8)
    if rng.random() < 0.3:
        data = np.zeros_like(data)
    header = Message(stamp=Message(sec=1, nanosec=2), frame_id="lidar")
    return Message(
        header=header, height=height, width=width, fields=fields, is_bigendian=rng.random() < 0.2,
        point_step=point_step, row_step=row_step, data=data, is_dense=True,
    )  # fmt: skip


def bent_message(rng: random.Random) -> Message:
    """A sound cloud with up to four of its numbers, fields or bytes changed; a tenth as slow as what hypothesis draws."""
    message = sound_message(rng)
    for _ in range(rng.randrange(5)):
        kind = rng.randrange(7)
        if kind < 2:
            name = rng.choice(("height", "width", "point_step", "row_step"))
            near = getattr(message, name) + rng.choice((-4, -1, 1, 4))
            setattr(message, name, rng.choice((*EXTREMES, max(near, 0), max(near, 0))))
        elif kind < 4 and message.fields:
            field, name = rng.choice(message.fields), rng.choice(("offset", "datatype", "count", "name"))
            setattr(field, name, rng.choice(("x", "y", "z", *FIELDS)) if name == "name" else rng.choice((*EXTREMES, 7, 8, 9)))
        elif kind == 4:
            message.data = message.data[: rng.randrange(len(message.data) + 1)]
        elif kind == 5:
            message.is_bigendian = not message.is_bigendian
        elif message.fields:
            message.fields = [*message.fields, rng.choice(message.fields)] if rng.random() < 0.5 else message.fields[:-1]
    return message
