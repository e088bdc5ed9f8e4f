"""Makes dist/autoglm: one executable file that holds autoglm and all it stands on, but no engine.

    build.py [OUTPUT]

A zip archive behind a few lines of shell. The packages are those of requirements/base.lock, from
the environment that runs this, so nothing is downloaded; the same sources and packages make the
same bytes. It runs under the Python version and on the kind of machine that it was made with.
"""

from __future__ import annotations

import hashlib
import io
import py_compile
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Final

from autoglm import __version__
from runtime.ourselves import MARK

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
ROOMS: Final = ("autoglm", "runtime", "model", "actors")
CODE: Final = frozenset({".py", ".so", ".sql", ".typed"})
LEGAL: Final = ("METADATA", "LICENSE", "LICENCE", "NOTICE", "COPYING", "AUTHORS")
LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"

HEADER: Final = f"""\
#!/bin/sh
# autoglm {__version__} for Python {PYTHON}: the lines that find it, and behind them a zip archive.
for python in python{PYTHON} python3 python; do
  command -v "$python" > /dev/null 2>&1 && exec "$python" "$0" "$@"
done
echo "autoglm: it needs Python {PYTHON}, and PATH has no python{PYTHON}" >&2
exit 2
"""


def main() -> int:
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist" / "autoglm"
    try:
        data = archive()
    except LookupError as error:
        print(f"autoglm: {error}", file=sys.stderr)
        return 2
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.part")
    part.write_bytes(data)
    part.chmod(0o755)
    part.replace(output)
    print(f"{output}: {len(data) / 1e6:.1f} MB, for Python {PYTHON} ({EXTENSION_SUFFIXES[0][1:]})")
    return 0


def archive() -> bytes:
    """The whole file. Raises LookupError for a package that is not installed as it is pinned."""
    files = dict(ours())
    for name, version in pinned():
        files.update(installed(name, version))
    files |= {compiled_name(name): compiled(name, files[name]) for name in files if is_code(name)}
    files[MARK] = f"autoglm {__version__}\n".encode()
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(data).digest())
    built = {"PYTHON": PYTHON, "SUFFIX": EXTENSION_SUFFIXES[0], "DIGEST": digest.hexdigest()[:32]}
    first = {
        "built.py": "".join(f"{name} = {value!r}\n" for name, value in built.items()).encode(),
        **{name: (HERE / name).read_bytes() for name in ("__main__.py", "unpack.py")},
    }
    return HEADER.encode() + zipped(first | {f"site/{name}": files[name] for name in files})


def ours() -> Iterator[tuple[str, bytes]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix in CODE:
                yield path.relative_to(ROOT).as_posix(), path.read_bytes()


def pinned() -> Iterator[tuple[str, str]]:
    """What autoglm stands on, by name and version."""
    for line in (ROOT / "requirements" / "base.lock").read_text().splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            yield name, version


def installed(name: str, version: str) -> Iterator[tuple[str, bytes]]:
    """A package's code, and what its licence wants kept. Raises LookupError."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise LookupError(f"{name} {version} is not installed: make setup") from None
    if found.version != version:
        raise LookupError(f"{name} {version} is pinned, {found.version} is installed: make setup")
    for path in found.files or ():
        if is_kept(path) and (source := Path(str(found.locate_file(path)))).is_file():
            yield path.as_posix(), source.read_bytes()


def is_kept(path: PurePosixPath) -> bool:
    if path.is_absolute() or ".." in path.parts:
        return False  # a script, outside the packages
    if path.parts[0].endswith(".dist-info"):
        return path.name.startswith(LEGAL) or "licenses" in path.parts
    return path.suffix in CODE


def is_code(name: str) -> bool:
    return name.endswith(".py") and ".dist-info/" not in name


def compiled_name(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc")


def compiled(name: str, source: bytes) -> bytes:
    """As Python would compile it, to be trusted without a look at the source's date."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "source.py"), Path(folder, "made.pyc")
        given.write_bytes(source)
        trusted = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(given), str(made), name, doraise=True, invalidation_mode=trusted)
        return made.read_bytes()


def zipped(files: dict[str, bytes]) -> bytes:
    """The same bytes for the same files, whenever and by whomever."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as into:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, LONG_AGO)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            into.writestr(entry, data)
    return memory.getvalue()


if __name__ == "__main__":
    sys.exit(main())
