# SPDX-License-Identifier: Apache-2.0
"""Make a net by name for a given input, and refuse in words what does not fit."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from weakseg_ros import registry
from weakseg_ros.errors import ConfigError, did_you_mean


def build_net(
    name: str, channels: Sequence[str], mean: Sequence[float], std: Sequence[float], num_classes: int, options: Mapping[str, Any]
) -> nn.Module:
    """The net of row `name` of registry.NETS with fresh weights, for input (raw - mean) / std in the order of `channels`.

    `options` are the net's further arguments by name. Raises ConfigError for one that the net does not have or cannot use,
    and where the net reads other channels by position (`leading_channels`) than the input begins with.
    """
    kind = registry.load(registry.NETS, name)
    known = [option for option in inspect.signature(kind).parameters if option not in ("channels", "num_classes")]
    for option in options:
        if option not in known:
            raise ConfigError(f"net '{name}': has no setting '{option}'{did_you_mean(option, known)}; known: {', '.join(known)}")
    leading = tuple(getattr(kind, "leading_channels", ()))
    if tuple(channels[: len(leading)]) != leading:
        raise ConfigError(f"channels: net '{name}' needs {', '.join(leading)} first; found {', '.join(channels)}")
    net: nn.Module = kind(len(channels), num_classes, **options)
    set_normalisation = getattr(net, "set_normalisation", None)
    if set_normalisation is not None:
        set_normalisation(mean, std)
    return net
