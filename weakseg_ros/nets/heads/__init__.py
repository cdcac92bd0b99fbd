# SPDX-License-Identifier: Apache-2.0
"""Heads: plain modules behind a net, each with outputs of its own."""
