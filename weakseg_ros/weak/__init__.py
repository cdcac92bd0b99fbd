# SPDX-License-Identifier: Apache-2.0
"""Weak supervision without a network: which labels are kept, and what one click says about its neighbourhood. No torch."""
