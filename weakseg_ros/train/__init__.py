# SPDX-License-Identifier: Apache-2.0
"""Training: from labelled scans to a run folder, and from a run folder to a bundle."""
