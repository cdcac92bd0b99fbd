# SPDX-License-Identifier: Apache-2.0
"""Adapting a bundle to a user's own clouds, without labels."""
