"""What an earlier server left is ended; whoever has its process id now is not touched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from runtime.orphans import ProcessIdentity, end_orphans, identity_of, record

SLEEPS = [sys.executable, "-P", "-c", "import time; time.sleep(600)"]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEPS, start_new_session=True) as process:
        yield process
        process.kill()


def write(folder: Path, identity: ProcessIdentity) -> Path:
    path = folder / "engine-1.host"
    path.write_bytes(msgspec.json.encode(identity))
    return path


def test_a_recorded_process_is_ended_and_its_record_removed(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    record(tmp_path / "engine-1.host", child.pid)
    assert end_orphans(tmp_path) == [child.pid]
    assert child.wait(10) == -9
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"began": 1}, {"boot": "another"}])
def test_a_stranger_with_the_same_process_id_is_not_touched(
    tmp_path: Path, child: subprocess.Popen[bytes], change: dict[str, object]
) -> None:
    identity = identity_of(child.pid)
    assert identity is not None
    path = write(tmp_path, msgspec.structs.replace(identity, **change))
    assert end_orphans(tmp_path) == []
    assert child.poll() is None
    assert not path.exists()


def test_who_is_gone_already_has_no_identity(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    identity = identity_of(child.pid)
    assert identity is not None
    child.kill()
    child.wait()
    assert identity_of(child.pid) is None
    write(tmp_path, identity)
    assert end_orphans(tmp_path) == []


@pytest.mark.parametrize("text", [b"", b"{}", b'{"pid": -1, "began": 0, "boot": ""}', b"\xff"])
def test_a_record_that_is_none_is_removed(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "engine-1.host").write_bytes(text)
    assert end_orphans(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
