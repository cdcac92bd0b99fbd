# SPDX-License-Identifier: Apache-2.0
"""Noticing that the name of a bundle (`models/current`) means another bundle than before."""

from __future__ import annotations

from weakseg_ros.deploy.bundle_place import INFO_FILE, find_bundle
from weakseg_ros.errors import BundleError


class BundleWatch:
    """Looks at a folder's identity alone, which takes microseconds; whether it can be loaded is for others to find out."""

    def __init__(self) -> None:
        self._seen: tuple[object, ...] | None = None

    def changed(self, where: str) -> bool:
        """Whether `where` means something that this object was not asked about last time; so a bad bundle is tried once."""
        seen = _identity(where)
        if seen == self._seen:
            return False
        self._seen = seen
        return True


def _identity(where: str) -> tuple[object, ...]:
    try:
        folder = find_bundle(where)
        status = (folder / INFO_FILE).stat()
    except (BundleError, OSError) as error:
        return ("absent", str(error))
    return folder, status.st_ino, status.st_mtime_ns, status.st_size
