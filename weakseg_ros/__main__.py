# SPDX-License-Identifier: Apache-2.0
"""`python -m weakseg_ros VERB` is `weakseg VERB`."""

import sys

from weakseg_ros.cli import main

sys.exit(main())
