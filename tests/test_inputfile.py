"""The input of a job, read as lines whatever it holds."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import UsageError
from autoglm.inputfile import InputFile, open_input, survey
from autoglm.jsonline import LINE_BYTES_MAX


@given(st.lists(st.sampled_from([b"\n", b"a", b"\r\n", b" ", b"{}", b"\0", b"\xff"])).map(b"".join))
def test_lines_are_those_of_the_file_and_the_hash_covers_all_of_it(content: bytes) -> None:
    source = InputFile(io.BytesIO(content))
    lines = list(source.lines())
    assert [number for number, _ in lines] == list(range(1, len(lines) + 1))
    assert b"".join(line for _, line in lines) == content
    assert source.sha256 == hashlib.sha256(content).hexdigest()


def test_a_line_without_end_comes_cut_and_the_next_is_whole() -> None:
    content = b"x" * (3 * LINE_BYTES_MAX) + b'\n{"prompt": "a"}\n'
    source = InputFile(io.BytesIO(content))
    (_, first), second = source.lines()
    assert len(first) == LINE_BYTES_MAX + 1
    assert second == (2, b'{"prompt": "a"}\n')
    assert source.sha256 == hashlib.sha256(content).hexdigest()


def test_a_survey_counts_tasks_and_knows_the_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"a\n\n \t\nb\n\nc")
    seen = survey(path)
    assert seen.tasks == 3
    assert [number for number in range(1, 10) if number in seen.blank] == [2, 3, 5]
    assert seen.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_empty_file_has_no_tasks(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.touch()
    assert survey(path).tasks == 0


def test_what_cannot_be_read_twice_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UsageError, match="not a regular file"):
            open_input(path)


def test_a_missing_file_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"in\.jsonl: No such file"):
        survey(tmp_path / "in.jsonl")
