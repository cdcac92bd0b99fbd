# SPDX-License-Identifier: Apache-2.0
"""Retraining on new clicks, the gate that judges the candidate, and which bundle is deployed."""
