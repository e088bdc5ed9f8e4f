"""Unpacks the archive's packages, the first time it is started.

The folder gets its name when all of it is on the disk, by one rename, so it is there whole or not
at all, whoever is killed meanwhile. One process unpacks at a time.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import zipfile

SITE = "site/"


def unpack(archive: str, target: str) -> None:
    """Make the folder `target` of what `archive` holds below `site/`. Raises OSError.

    The folder it is made in is there and nobody else's.
    """
    part = f"{target}.part"
    before = os.umask(0o077)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(f"{target}.lock", flags, 0o600), "r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.isdir(target):
                return  # whoever held the lock has done it
            if os.path.isdir(part):
                shutil.rmtree(part)
            with zipfile.ZipFile(archive) as held:
                held.extractall(part, [name for name in held.namelist() if name.startswith(SITE)])
            os.sync()
            os.rename(os.path.join(part, SITE), target)
            os.rmdir(part)
    finally:
        os.umask(before)
