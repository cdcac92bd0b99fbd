# SPDX-License-Identifier: Apache-2.0
"""The frame log: which frames a robot keeps, and which points of them are worth a click. No torch."""
