# SPDX-License-Identifier: Apache-2.0
"""A referring head's two graphs, of sentences and of superpoints, as ONNX files that answer as torch does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from weakseg_ros.deploy.engines.onnxruntime import open_session
from weakseg_ros.deploy.referring import KIND_MATCH, KIND_TEXT, MATCH_INPUTS, MATCH_OUTPUTS, TEXT_INPUTS, TEXT_OUTPUTS
from weakseg_ros.deploy.tensors import TensorSpec
from weakseg_ros.deploy.vocabulary import LONGEST
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.nets.heads.referring import MatchGraph, ReferringHead, TextGraph
from weakseg_ros.train.onnx_file import OPSET, clean, quiet

Arrays = dict[str, NDArray[Any]]
SAMPLE_SENTENCES, SAMPLE_SUPERPOINTS = 3, 40


def referring_head(heads: Heads | None) -> ReferringHead | None:
    """The one among the heads; None where there is none."""
    return next((head for head in (() if heads is None else heads.each) if isinstance(head, ReferringHead)), None)


def referring_files(heads: Heads | None) -> tuple[dict[str, tuple[str, bytes]], dict[str, float]]:
    """({file name: (kind, content)}, how far each file's answers are from torch's); both empty without a referring head.

    `referring_text_difference` and `referring_match_difference` are the largest ones of any output, on made-up sentences and
    superpoints, padded and whole.
    """
    head = referring_head(heads)
    if head is None:
        return {}, {}
    head = head.eval().cpu()
    tokens, superpoints = _samples(head)
    text = _to_onnx(TextGraph(head), tokens, TEXT_INPUTS, TEXT_OUTPUTS)
    with torch.inference_mode():
        words = TextGraph(head)(torch.from_numpy(tokens["tokens"]))
    matching = {**dict(zip(TEXT_OUTPUTS, (word.numpy() for word in words), strict=True)), **superpoints}
    match = _to_onnx(MatchGraph(head), matching, MATCH_INPUTS, MATCH_OUTPUTS)
    parity = {
        "referring_text_difference": difference(TextGraph(head), text, tokens, TEXT_OUTPUTS),
        "referring_match_difference": difference(MatchGraph(head), match, matching, MATCH_OUTPUTS),
    }
    return {"referring-text.onnx": (KIND_TEXT, text), "referring-match.onnx": (KIND_MATCH, match)}, parity


def difference(graph: nn.Module, model: bytes, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, TensorSpec]) -> float:
    """The largest difference of any output between torch and onnxruntime, over the largest value of torch's, or over 1."""
    session = open_session(model, 1, "export", ["CPUExecutionProvider"])
    theirs = session.run(list(outputs), dict(inputs))
    with torch.inference_mode():
        ours = [value.float().numpy() for value in graph(*(torch.from_numpy(inputs[name]) for name in inputs))]
    apart = [float(np.abs(a - b).max() / max(1.0, float(np.abs(a).max()))) for a, b in zip(ours, theirs, strict=True)]
    return max(apart) if np.isfinite(apart).all() else float("inf")


def _samples(head: ReferringHead) -> tuple[Arrays, Arrays]:
    """Made-up sentences, and superpoints about as far from the mean as real ones are."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, head.embedding.num_embeddings, (SAMPLE_SENTENCES, LONGEST))
    there = np.ones((SAMPLE_SENTENCES, SAMPLE_SUPERPOINTS), np.bool_)
    tokens[0, LONGEST // 4 :], there[0, SAMPLE_SUPERPOINTS // 2 :] = 0, False
    drawn = rng.normal(size=(*there.shape, len(head.mean))).astype(np.float32)
    return {"tokens": tokens}, {"superpoints": drawn * head.std.numpy() + head.mean.numpy(), "there": there}


def _to_onnx(
    graph: nn.Module, inputs: Arrays, inputs_table: Mapping[str, TensorSpec], outputs_table: Mapping[str, TensorSpec]
) -> bytes:
    """One ONNX file that takes any number of sentences, and of superpoints."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    free = {"S": torch.export.Dim("superpoints", min=1, max=4096)}
    shapes = {
        name: {0: batch, **({1: free[spec.shape[1]]} if spec.shape[1] in free else {})} for name, spec in inputs_table.items()
    }
    with quiet("torch.onnx"), torch.no_grad():
        program = torch.onnx.export(
            graph.eval(),
            tuple(torch.from_numpy(inputs[name]) for name in inputs_table),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=list(inputs_table),
            output_names=list(outputs_table),
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None, "torch exports what it has traced"
    return clean(program.model_proto)
