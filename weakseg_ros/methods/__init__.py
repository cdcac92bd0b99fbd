# SPDX-License-Identifier: Apache-2.0
"""Methods: how a net learns from the labels there are. One file and one line in `registry.METHODS` each.

A method sees features and logits, never a particular net. What it adds (projections, prototypes, a teacher, heads) lives
in its own parameters and buffers and is saved with the checkpoint; of these only what `deployable` gives reaches a robot.
"""
