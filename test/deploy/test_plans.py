# SPDX-License-Identifier: Apache-2.0
"""TensorRT's plans: what their keys depend on, buffers of a frame, and what is said where there is no GPU."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from support import optional
from weakseg_ros.cli import main
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines.cache import Cache
from weakseg_ros.deploy.engines.gpu import Gpu, first_gpu
from weakseg_ros.deploy.engines.plans import kept_plan, library_of, plan_key, shapes_of
from weakseg_ros.deploy.tensors import TensorSpec
from weakseg_ros.errors import EngineError
from weakseg_ros.extras import has_nvidia_gpu

GPU = Gpu("NVIDIA Orin", (8, 7))
SHAPES = {"image": (1, 5, 16, 64)}
no_gpu_here = pytest.mark.skipif(has_nvidia_gpu(), reason="this machine has an NVIDIA GPU")


def test_a_plan_holds_for_one_file_library_gpu_arithmetic_and_shape() -> None:
    keys = {
        plan_key(b"model", "tensorrt 11.4", GPU, "fp16", SHAPES),
        plan_key(b"other", "tensorrt 11.4", GPU, "fp16", SHAPES),
        plan_key(b"model", "tensorrt 11.3", GPU, "fp16", SHAPES),
        plan_key(b"model", "tensorrt_rtx 11.4", GPU, "fp16", SHAPES),
        plan_key(b"model", "tensorrt 11.4", GPU._replace(name="NVIDIA Thor"), "fp16", SHAPES),
        plan_key(b"model", "tensorrt 11.4", GPU._replace(capability=(8, 6)), "fp16", SHAPES),
        plan_key(b"model", "tensorrt 11.4", None, "fp16", SHAPES),
        plan_key(b"model", "tensorrt 11.4", GPU, "fp32", SHAPES),
        plan_key(b"model", "tensorrt 11.4", GPU, "fp16", {"image": (1, 5, 16, 128)}),
    }
    assert len(keys) == 9


def test_shapes_are_those_of_one_frame_and_an_open_size_is_refused(tiny_bundle: Bundle) -> None:
    assert shapes_of(tiny_bundle) == SHAPES
    prompt = TensorSpec("int64", ("B", "T"), "tokens")
    info = dataclasses.replace(tiny_bundle.info, inputs={**tiny_bundle.info.inputs, "prompt": prompt})
    with pytest.raises(EngineError, match="the size 'T' of its input 'prompt' is not fixed"):
        shapes_of(Bundle(tiny_bundle.folder, info))


@pytest.mark.slow
def test_a_damaged_plan_is_built_anew(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trt = optional("tensorrt_rtx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def get() -> tuple[bytes, bool]:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            plan, key = kept_plan(trt, tiny_bundle.read("model.onnx"), "model.onnx", "fp32", SHAPES, None)
        assert Cache("plans").get(key) == plan
        return plan, "builds its engine" in caplog.text

    assert get()[1]
    assert not get()[1]
    (file,) = [path for path in (tmp_path / "weakseg_ros" / "plans").iterdir() if path.suffix == ""]
    whole = file.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        assert get()[1]
    assert not [path for path in file.parent.iterdir() if path.suffix not in ("", ".lock")]


@no_gpu_here
def test_without_a_gpu_the_reason_is_a_sentence(tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match=r"no NVIDIA driver is installed|CUDA finds no GPU"):
        first_gpu()
    optional("tensorrt_rtx")
    assert main(["build-engine", str(tiny_bundle.folder), "--engine", "tensorrt_rtx"]) == 2
    assert "engines are built on the machine that runs them" in capsys.readouterr().err


def test_an_old_tensorrt_is_refused() -> None:
    old = SimpleNamespace(__name__="tensorrt", __version__="8.6.1")
    with pytest.raises(EngineError, match=r"tensorrt: is 8\.6\.1, at least 10\.12 is needed"):
        library_of(old)


def test_buffers_keep_their_addresses_and_answer_in_kind() -> None:
    torch = optional("torch")
    from weakseg_ros.deploy.engines.buffers import FrameBuffers, joined

    buffers = FrameBuffers("cpu", {"image": ((1, 2, 3), "float32")}, {"double": ((1, 2, 3), "float32")})
    addresses = [buffers.inputs["image"].data_ptr(), buffers.outputs["double"].data_ptr()]

    def launch(stream: int) -> None:
        assert stream == 0
        torch.mul(buffers.inputs["image"], 2, out=buffers.outputs["double"])

    buffers.capture(launch)
    image = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    first, second = (buffers.run({"image": image + shift}, launch)["double"] for shift in (0, 1))
    np.testing.assert_array_equal(first, image * 2)  # the second frame has not written over it
    np.testing.assert_array_equal(second, image * 2 + 2)
    tensor = buffers.run({"image": torch.from_numpy(image)}, launch)["double"]
    assert isinstance(tensor, torch.Tensor)
    assert [buffers.inputs["image"].data_ptr(), buffers.outputs["double"].data_ptr()] == addresses
    assert joined([first, second]).shape == joined([tensor, tensor]).shape == (2, 2, 3)


def test_out_of_memory_is_asked_once_more_and_a_lost_device_is_named() -> None:
    torch = optional("torch")
    from weakseg_ros.deploy.engines import DeviceLostError
    from weakseg_ros.deploy.engines.buffers import guarded

    faults: list[Exception] = [torch.OutOfMemoryError("first")]

    def work() -> str:
        if faults:
            raise faults.pop()
        return "answer"

    assert guarded("m", "cuda:0", work, "torch") == "answer"
    faults += [torch.OutOfMemoryError("second"), torch.OutOfMemoryError("first")]
    with pytest.raises(EngineError, match=r"m: cuda:0 is out of memory \(second\)"):
        guarded("m", "cuda:0", work, "torch")
    faults += [RuntimeError("CUDA error: an illegal memory access")]
    with pytest.raises(DeviceLostError, match="torch failed"):
        guarded("m", "cuda:0", work, "torch")
    faults += [RuntimeError("shapes")]
    with pytest.raises(EngineError, match="torch failed") as caught:
        guarded("m", "cuda:0", work, "torch")
    assert not isinstance(caught.value, DeviceLostError)
