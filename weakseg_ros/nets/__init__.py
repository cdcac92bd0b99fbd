# SPDX-License-Identifier: Apache-2.0
"""Backbones. Each takes a range image, or points and their pyramid, and returns a NetOutput; methods see features, not nets.

A net is made as `Net(channels, num_classes, width=..., further options)` and has `feature_channels` and `stage_channels`.
It may have, besides:

    Settings             frozen dataclass of its further options, a section of a training's settings; see registry.settings_of
    representation       row of registry.FRONTENDS that makes its inputs: range where it is not said, or points
    leading_channels     names of the channels that it reads by position, which the input must begin with
    set_normalisation    told each channel's mean and std, where the net needs raw values; kept with the weights
    why_no_onnx          why it cannot become an ONNX file; its bundles hold weights for torch alone
"""
