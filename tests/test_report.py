"""What benchmarks say of their samples is what the samples say."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from autoglm import wire
from bench.load import ANSWER, RID_FIRST, SUBMITTED, TAG_AT, task_ids
from bench.report import Figure, conditions, finish, on_disk, options, percentile, ratio, turns


def test_a_percentile_is_a_sample_that_so_many_do_not_exceed() -> None:
    samples = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(samples, each) for each in (1, 20, 21, 50, 99, 100)] == [1, 1, 2, 3, 5, 5]


def test_a_ratio_compares_within_a_round_and_takes_the_median_of_those() -> None:
    ours = Figure("ours", "1/s", [10, 40, 90])
    theirs = Figure("theirs", "1/s", [10, 10, 10])
    assert ratio(ours, theirs).samples == [1, 4, 9]
    assert ratio(ours, theirs).median == 4


@pytest.mark.parametrize(("less", "met"), [(False, False), (True, True)])
def test_a_floor_is_met_from_the_better_side(*, less: bool, met: bool) -> None:
    assert Figure("it", "ms", [4, 5, 6], floor=5.5, less=less).met is met


def test_a_figure_without_a_floor_is_never_missed() -> None:
    assert Figure("it", "ms", [5], aim=1, less=True).met


def test_legs_take_turns() -> None:
    order: list[str] = []
    turns(2, {"a": lambda: order.append("a"), "b": lambda: order.append("b")})
    assert order == ["a", "b", "a", "b"]


def test_a_missed_floor_ends_with_1_and_every_sample_is_written(tmp_path: Path) -> None:
    arguments = options("it", None).parse_args(["--output", str(tmp_path / "sub" / "it.json")])
    state = conditions(arguments)
    good, bad = Figure("good", "", [2, 3], floor=2), Figure("bad", "", [1, 1], floor=2)
    assert finish(arguments.output, state, [good], {}) == 0
    assert finish(arguments.output, state, [good, bad], {"more": [1]}) == 1
    written = json.loads(arguments.output.read_text())
    assert [row["samples"] for row in written["figures"]] == [[2, 3], [1, 1]]
    assert [row["met"] for row in written["figures"]] == [True, False]
    assert written["more"] == [1]


def test_a_folder_in_memory_is_no_disk() -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no folder in memory here")
    with pytest.raises(argparse.ArgumentTypeError, match="in memory"):
        on_disk("/dev/shm")


@pytest.mark.parametrize(
    ("reply", "tag"),
    [(wire.Submitted(RID_FIRST), SUBMITTED), (wire.AnswerReply(RID_FIRST + 5), ANSWER)],
)
def test_the_load_generator_reads_kind_and_request_where_the_frame_has_them(
    reply: wire.Reply, tag: int
) -> None:
    frame = wire.encode_frame(reply)
    assert frame[TAG_AT] == tag
    at = TAG_AT + 1 + tag - 0xA0 + len(b"\xa3rid\xce")
    assert int.from_bytes(frame[at : at + 4], "big") == reply.rid


def test_the_load_generator_mints_the_same_ids_for_a_seed_and_no_others() -> None:
    assert task_ids(100, 1) == task_ids(100, 1)
    assert len({*task_ids(100, 1), *task_ids(100, 2)}) == 200
