"""What runs first in the archive: a look at the Python, then the packages, then the command.

Python can't load a compiled module out of an archive, so all packages are unpacked once, into the
user's cache, under a name made of their content. Every later start finds them there. This file says
nothing that an older Python 3 could not read, for it is the one that tells whoever has that.
"""

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES

import built  # by archive/build.py


def main():
    if EXTENSION_SUFFIXES[0] != built.SUFFIX:
        end(
            "this archive is for CPython %s (%s), and %s is %s: name the right one, as in"
            " `python%s %s`, or make an archive with that one: make binary"
            % (
                built.PYTHON,
                built.SUFFIX.split(".")[1],
                sys.executable,
                ".".join(map(str, sys.version_info[:3])),
                built.PYTHON,
                sys.argv[0],
            )
        )
    site = os.path.join(cache(), built.DIGEST)
    try:
        os.makedirs(os.path.dirname(site), mode=0o700, exist_ok=True)
        check_ours(os.path.dirname(site))
        if not os.path.isdir(site):
            import unpack

            unpack.unpack(sys.path[0], site)
        check_ours(site)
    except OSError as error:
        end(
            "can't unpack into %s: %s; set XDG_CACHE_HOME to a folder that can be written"
            % (error.filename or site, error.strerror)
        )
    sys.path[0] = site

    from actors.main import main

    main()


def cache():
    """The folder of all that archives unpacked, by the XDG rules."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "autoglm", "archive")


def check_ours(folder):
    """Ends it when others could have put there what is in it. Raises OSError."""
    status = os.stat(folder)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        end(
            "%s belongs to somebody else or can be written by others: remove it, or set"
            " XDG_CACHE_HOME to a folder of your own" % folder
        )


def end(why):
    sys.stderr.write("autoglm: %s\n" % why)
    sys.exit(2)


main()
