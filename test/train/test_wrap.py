# SPDX-License-Identifier: Apache-2.0
"""An ONNX file of another project becomes a bundle that the robot's own code runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from support import optional

optional("onnxruntime")
onnx = optional("onnx")
from onnx import TensorProto, helper, numpy_helper

from weakseg_ros.cli import main
from weakseg_ros.deploy.bundle import Bundle

ARCH = """dataset:
  sensor:
    fov_up: 3
    fov_down: -25
    img_prop: {height: 16, width: 128}
    img_means: [0, 0, 0, 0, 0]
    img_stds: [1, 1, 1, 1, 1]
"""
DATA = """labels: {0: unlabeled, 40: road, 50: building}
learning_map: {0: 0, 40: 1, 50: 2}
learning_map_inv: {0: 0, 1: 40, 2: 50}
learning_ignore: {0: true, 1: false, 2: false}
"""


def write_model(path: Path, probabilities: bool, opset: int = 13, channels: int = 3) -> Path:
    """Road where the intensity is below 0.4, building above; the channel of 'unlabeled' is the largest of all."""
    weight = np.zeros((channels, 5, 1, 1), np.float32)
    weight[channels - 2 :, 4] = np.array([[-20.0], [20.0]])[..., None]
    bias = np.array([50.0, 8.0, -8.0], np.float32)[-channels:]
    nodes = [helper.make_node("Conv", ["scan", "w", "b"], ["logits"])]
    nodes += [helper.make_node("Softmax", ["logits"], ["softmax"], axis=1)] if probabilities else []
    output = "softmax" if probabilities else "logits"
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("scan", TensorProto.FLOAT, [1, 5, 16, 128])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, channels, 16, 128])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.fixture
def place(tmp_path: Path, layouts: ModuleType) -> Path:
    layouts.write_bare(tmp_path / "scans", 2)
    (tmp_path / "arch_cfg.yaml").write_text(ARCH)
    (tmp_path / "data_cfg.yaml").write_text(DATA)
    return tmp_path


def words(place: Path, model: Path) -> list[str]:
    files = ["--spec", str(place / "arch_cfg.yaml"), "--label-map", str(place / "data_cfg.yaml")]
    return ["wrap", str(model), *files, "--out", str(place / "mine")]


@pytest.mark.parametrize(("opset", "channels"), [(11, 3), (13, 3), (18, 3), (13, 2)])
def test_a_model_of_another_project_answers_on_scans(
    opset: int, channels: int, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(place / "salsa.onnx", False, opset, channels)
    assert main([*words(place, model), "--data", str(place / "scans")]) == 0
    assert "on 100.00% of the pixels" in capsys.readouterr().out
    bundle = Bundle.load(place / "mine")
    assert bundle.labels.names == ("unlabelled", "road", "building")
    assert "It is not known:" in (place / "mine" / "MODEL_CARD.md").read_text()
    assert main(["evaluate", str(place / "scans"), "--bundle", str(place / "mine"), "--out", str(place / "out")]) == 0
    said = capsys.readouterr().out
    assert "mIoU 1.000 over the 2 classes" in said or "mIoU 0.99" in said


def test_probabilities_are_recognised(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(place, write_model(place / "salsa.onnx", True))) == 0
    assert "on noise; name scans with --data" in capsys.readouterr().out


def test_what_does_not_fit_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(place / "salsa.onnx", False)
    assert main([*words(place, model), "--label-map", "semantickitti"]) == 2
    assert "returns 3 classes, but label map 'semantickitti' has 19 and 'unlabelled'" in capsys.readouterr().err
    (place / "arch_cfg.yaml").write_text(ARCH.replace("height: 16", "height: 64"))
    assert main(words(place, model)) == 2
    assert "but --spec describes images" in capsys.readouterr().err
    (place / "arch_cfg.yaml").write_text(ARCH.replace("fov_up", "fov"))
    assert main(words(place, model)) == 2
    assert "dataset.sensor has no 'fov_up'" in capsys.readouterr().err
    (place / "bad.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    assert main(words(place, place / "bad.onnx")) == 2
    assert not (place / "mine").exists()


def write_odd(path: Path, inputs: Sequence[str], shape: list[int], nodes: list[Any], outputs: Sequence[str]) -> Path:
    """A model that is not the usual one: several inputs or outputs, or channels last."""
    weight = numpy_helper.from_array(np.ones((5, 3), np.float32), "w")
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs],
        [weight, numpy_helper.from_array(np.ones((3, 5, 1, 1), np.float32), "k")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_odd_inputs_and_outputs_are_said_with_what_to_do(
    place: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    first, last = [1, 5, 16, 128], [1, 16, 128, 5]
    scores = helper.make_node("Conv", ["scan", "k"], ["scores"])
    two = write_odd(place / "two.onnx", ("scan", "mask"), first, [scores], ("scores",))
    assert main(words(place, two)) == 2
    assert "takes 2 inputs (scan, mask), not one range image" in capsys.readouterr().err
    behind = write_odd(place / "last.onnx", ("scan",), last, [helper.make_node("MatMul", ["scan", "w"], ["scores"])], ("scores",))
    assert main(words(place, behind)) == 2
    assert "export the net with the channels first (N, C, H, W)" in capsys.readouterr().err
    more = write_odd(
        place / "more.onnx", ("scan",), first, [scores, helper.make_node("Relu", ["scores"], ["edges"])], ("scores", "edges")
    )
    assert main(words(place, more)) == 0
    assert "returns scores, edges; 'scores', the first, is taken for the scores" in caplog.text


@pytest.mark.parametrize(("net", "probabilities"), [("salsanext", True), ("rangenet21", False)])
def test_a_published_net_is_wrapped_with_its_answers(
    net: str, probabilities: bool, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As their own projects export them: SalsaNext ends in a softmax, RangeNet in scores; both have a channel of 'unlabeled'."""
    torch = optional("torch")
    from weakseg_ros.data.scans import open_scans
    from weakseg_ros.deploy.segmenter import Segmenter
    from weakseg_ros.registry import NETS, load

    torch.manual_seed(0)
    inner = load(NETS, net)(5, 3, width=4).eval()

    class Published(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, scan):  # type: ignore[no-untyped-def]
            logits = self.inner(scan).logits
            return torch.softmax(logits, 1) if probabilities else logits

    model = place / f"{net}.onnx"
    published, like = Published().eval(), torch.zeros(1, 5, 16, 128)
    torch.onnx.export(published, (like,), str(model), dynamo=False, input_names=["scan"], output_names=["out"])
    assert main([*words(place, model), "--data", str(place / "scans")]) == 0
    assert "on 100.00% of the pixels" in capsys.readouterr().out
    segmenter = Segmenter(Bundle.load(place / "mine"))
    inputs, _ = segmenter.frontend.encode(open_scans(place / "scans")[0].cloud)
    answers = segmenter.engine.run(inputs)["class_id"][0]
    segmenter.close()
    with torch.inference_mode():
        expected = published(torch.from_numpy(inputs["image"]))[0, 1:].argmax(0).numpy() + 1
    assert (answers == expected).mean() > 0.999


def convolution(path: Path, kind: int, batch: int | str = 1, after: Sequence[Any] = (), shape: Sequence[Any] = ()) -> Path:
    """A net of three scores in the precision `kind`, with `after` behind them."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = [np.zeros((3, 5, 1, 1), dtype), np.array([50.0, 8.0, -8.0], dtype)]
    weights[0][1:, 4] = np.array([[-20.0], [20.0]])[..., None]
    nodes = [helper.make_node("Conv", ["scan", "w", "b"], ["logits" if after else "out"]), *after]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("scan", kind, [batch, 5, 16, 128])],
        [helper.make_tensor_value_info("out", kind, shape or [batch, 3, 16, 128])],
        [numpy_helper.from_array(values, name) for values, name in zip(weights, ("w", "b"), strict=True)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.FLOAT])
def test_a_model_in_half_precision_is_fed_float32_and_answers(kind: int, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = convolution(place / "half.onnx", kind, "N")
    assert main([*words(place, model), "--data", str(place / "scans")]) == 0
    assert "on 100.00% of the pixels" in capsys.readouterr().out
    assert main(["evaluate", str(place / "scans"), "--bundle", str(place / "mine"), "--out", str(place / "out")]) == 0


def test_a_fixed_batch_classes_last_and_scores_that_are_not_finite_are_said(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(place, convolution(place / "four.onnx", TensorProto.FLOAT, 4))) == 2
    assert "export the net for one image at a time, or with a dynamic first axis" in capsys.readouterr().err
    last = [helper.make_node("Transpose", ["logits"], ["out"], perm=[0, 2, 3, 1])]
    assert main(words(place, convolution(place / "last.onnx", TensorProto.FLOAT, 1, last, [1, 16, 128, 3]))) == 2
    assert "returns (16, 128, 3), the classes last; export the net with them first" in capsys.readouterr().err
    logs = [helper.make_node("Neg", ["logits"], ["negative"]), helper.make_node("Log", ["negative"], ["out"])]
    assert main(words(place, convolution(place / "nan.onnx", TensorProto.FLOAT, 1, logs))) == 2
    assert "returns scores that are not finite on 100% of the pixels" in capsys.readouterr().err


def test_weights_in_another_file_are_read_and_missed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = convolution(place / "big.onnx", TensorProto.FLOAT)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="big.data", size_threshold=0)
    assert main(words(place, path)) == 0
    (place / "big.data").unlink()
    assert main([*words(place, path), "--overwrite"]) == 2
    assert "its weights lie in that file, copy it to the model's side" in capsys.readouterr().err
