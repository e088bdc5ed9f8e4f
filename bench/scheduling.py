"""The order of tasks: real traces replayed in virtual time, ours against other orders.

A trace is a CSV file of `arrival_s,input_tokens,output_tokens`; each file is a kind. Its time is
scaled, bursts and all, so that load 1.0 is what the engine does when all of it is there from the
start, first come, first served. Normalised latency is (end - arrival) / output tokens; a wait is
the time between arrival and first entry into the engine. Nothing depends on the machine's speed.

The engine's prompts go in some twelve times as fast as answers come out of its full slots. Other
proportions are measured too. Without `--trace` it is the samples in bench/data, whose results go
to a file of their own: ten minutes are short for what is learned to count, so the floors for the
mean of the mix and for urgent tasks hold for whole traces only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from actors.policy.preempt import Running, Waiting, for_shorter
from bench import report
from bench.bulk import over_bulk, questions
from bench.orders import ORDERS, OURS, Request, read_trace
from bench.replay import Machine, Measured, Replayed, replayed, scaled
from bench.report import Figure, less, progress
from model.simulated import Timing
from runtime.config import SimulatedConfig

DATA: Final = Path(__file__).parent / "data"
SAMPLES: Final = (
    DATA / "azure_conv_2023_sample.csv",
    DATA / "azure_code_2023_sample.csv",
)
LOADS: Final = (0.5, 0.8, 0.95, 1.1)
HIGH: Final = 0.95
QUANTUM: Final = 64
"""Tokens after which the naive feedback stops a generation."""
OTHER_ENGINES: Final = ((16, 10.0, 0.0), (64, 10.0, 40_000.0), (128, 10.0, 10_000.0))
"""Slots, step in ms, prefilled tokens per second. The last one is the configuration's default."""


def at_every_quantum(
    running: Sequence[Running],
    waiting: Sequence[Waiting],
    prefill_steps: float,  # noqa: ARG001
) -> tuple[int, ...]:
    """Feedback without regard to the price: whoever has used up a quantum goes for who waits."""
    due = [each.seq for each in running if each.made >= QUANTUM * (each.stops + 1)]
    return tuple(due[: len(waiting)])


def mixed(traces: Sequence[list[Request]]) -> list[Request]:
    return sorted(each for trace in traces for each in trace)


def compare(requests: Sequence[Request], machine: Machine) -> dict[float, dict[str, Measured]]:
    """Each order at each load."""
    found: dict[float, dict[str, Measured]] = {}
    for load in LOADS:
        at_load = scaled(requests, machine, load)
        found[load] = {
            order: Measured.of(at_load, replayed(at_load, machine, order)) for order in ORDERS
        }
    return found


def of_the_mix(found: dict[str, Measured], load: float, *, whole: bool) -> list[Figure]:
    fifo, ours, bound = found["fifo"], found[OURS], found["clairvoyant"]
    targets = (0.37, 0.20) if whole else (None, None)
    return [
        less(f"two kinds at {load:g}: mean / fifo", ours.mean / fifo.mean, *targets),
        less(f"two kinds at {load:g}: p99 / fifo", ours.p99 / fifo.p99),
        less(
            f"two kinds at {load:g}: longest wait / fifo",
            ours.longest_wait_s / fifo.longest_wait_s,
            1.5,
        ),
        less(f"two kinds at {load:g}: mean / fifo, clairvoyant", bound.mean / fifo.mean),
        less(
            f"two kinds at {load:g}: longest wait / fifo, clairvoyant",
            bound.longest_wait_s / fifo.longest_wait_s,
        ),
    ]


def of_one_kind(kind: str, found: dict[float, dict[str, Measured]]) -> list[Figure]:
    pairs = [(each["fifo"], each[OURS]) for each in found.values()]
    return [
        less(f"{kind} at {load:g}: {what} / fifo", getattr(ours, what) / getattr(fifo, what), 1.03)
        for load, (fifo, ours) in zip(found, pairs, strict=True)
        for what in ("mean", "p99")
    ]


def preemption(requests: Sequence[Request], machine: Machine, kind: str) -> list[Figure]:
    """What stopping long generations for waiting ones brings, at the high load."""
    at_load = scaled(requests, machine, HIGH)
    ours = Measured.of(at_load, replayed(at_load, machine, OURS))
    careful = replayed(at_load, machine, OURS, stop=for_shorter)
    naive = replayed(at_load, machine, OURS, stop=at_every_quantum)
    return [
        less(f"{kind}: mean, stopped where it pays / never", by_mean(at_load, careful, ours)),
        Figure(f"{kind}: stopped where it pays", "times", [careful.stops]),
        less(f"{kind}: mean, stopped at every quantum / never", by_mean(at_load, naive, ours)),
    ]


def by_mean(requests: Sequence[Request], done: Replayed, base: Measured) -> float:
    return Measured.of(requests, done).mean / base.mean


def on_other_engines(both: Sequence[Request]) -> list[Figure]:
    """The mix at the high load where slots, steps and prefill stand in other proportions."""
    figures: list[Figure] = []
    for slots, step_ms, prefill_tok_s in OTHER_ENGINES:
        other = machine_of(slots, step_ms, prefill_tok_s)
        at_load = scaled(both, other, HIGH)
        fifo, ours = (
            Measured.of(at_load, replayed(at_load, other, order)) for order in ("fifo", OURS)
        )
        name = f"two kinds on {slots} slots, {prefill_tok_s:,.0f} prefilled/s"
        figures += [
            less(f"{name}: mean / fifo", ours.mean / fifo.mean),
            less(f"{name}: longest wait / fifo", ours.longest_wait_s / fifo.longest_wait_s),
        ]
    return figures


def machine_of(slots: int, step_ms: float, prefill_tok_s: float) -> Machine:
    return Machine(slots, Timing.of(SimulatedConfig(step_ms=step_ms, prefill_tok_s=prefill_tok_s)))


def parser() -> argparse.ArgumentParser:
    made = report.options("scheduling", __doc__)
    made.add_argument(
        "--trace", type=Path, action="append", help="a kind's trace; more than one: mixed too"
    )
    made.add_argument("--slots", type=int, default=32)
    made.add_argument("--step-ms", type=float, default=10.0)
    made.add_argument("--prefill-tok-s", type=float, default=40_000.0, help="0: prefill is free")
    return made


def main() -> int:
    made = parser()
    arguments = made.parse_args()
    paths: list[Path] = list(SAMPLES) if arguments.quick else arguments.trace or list(SAMPLES)
    whole = paths != list(SAMPLES)
    if not whole and arguments.output == made.get_default("output"):
        arguments.output = arguments.output.with_stem("scheduling_samples")
    arguments.trace = [path.name for path in paths]
    state = report.conditions(arguments)
    machine = machine_of(arguments.slots, arguments.step_ms, arguments.prefill_tok_s)
    traces = [read_trace(path) for path in paths]
    workloads = {trace[0].kind: trace for trace in traces}
    if len(traces) > 1:
        workloads["mixed"] = mixed(traces)
    tables: dict[str, dict[float, dict[str, Measured]]] = {}
    for name, requests in workloads.items():
        progress(f"{name}: {len(requests)} requests at {len(LOADS)} loads in {len(ORDERS)} orders")
        tables[name] = compare(requests, machine)
    figures: list[Figure] = []
    if "mixed" in tables:
        figures += of_the_mix(tables["mixed"][HIGH], HIGH, whole=whole)
    for trace in traces:
        figures += of_one_kind(trace[0].kind, tables[trace[0].kind])
    progress("urgent tasks over files, and generations stopped for others")
    first, file = traces[0], questions()
    figures += over_bulk(first, file, machine, "questions", bar=whole)
    figures += over_bulk(first, first, machine, "conversations", bar=False)
    for name, requests in workloads.items():
        figures += preemption(requests, machine, name)
    if "mixed" in workloads:
        figures += on_other_engines(workloads["mixed"])
    return report.finish(arguments.output, state, figures, {"orders": as_rows(tables)})


def as_rows(tables: dict[str, dict[float, dict[str, Measured]]]) -> list[dict[str, Any]]:
    """Every order at every load, for who wants more than the figures."""
    return [
        {"trace": name, "load": load, "order": order, **measured._asdict()}
        for name, loads in tables.items()
        for load, orders in loads.items()
        for order, measured in orders.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
