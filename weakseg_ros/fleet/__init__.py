# SPDX-License-Identifier: Apache-2.0
"""Many robots: their bags as tasks of a Ray cluster, and one report and one labelling queue over all of them."""
