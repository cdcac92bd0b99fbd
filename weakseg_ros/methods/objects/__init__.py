# SPDX-License-Identifier: Apache-2.0
"""Objects from clicks and from queries: distances, matching and mask losses."""
