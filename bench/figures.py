"""The figures that the README shows, from the results of the benchmarks: `figures.py` puts them in.

A benchmark writes its results to bench/results; what stands in the README between the two marks is
made from there and from nowhere else, and a test holds it to that.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
README: Final = HERE.parent / "README.md"
BEGIN: Final = "<!-- figures: python -P bench/figures.py -->\n"
END: Final = "<!-- end of figures -->\n"

LONG_ANSWERS: Final = {
    "answers whose engine was killed": "greedy answers of 512 tokens, engine killed once",
    "same text": "… the same text as undisturbed",
    "made again / all tokens": "… tokens made again, of all, checkpoints every 16",
    "made again, p99": "… p99 of an answer",
    "every 256 / no checkpoints": "tokens per second, checkpoints every 256, against none",
    "every 64 / no checkpoints": "… every 64",
    "every 16 / no checkpoints": "… every 16",
}
SHOWN: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "engine_overhead": (
        "Tokens per second of SmolLM2 on 96 GSM8K questions, engines loaded",
        {
            "autoglm": "autoglm: durable in, recorded out",
            "direct": "the bare engine (vLLM's AsyncLLM in a loop), same settings",
            "run_batch": "vLLM's own batch runner, same settings",
            "run_batch_defaults": "vLLM's own batch runner, as it comes",
            "serial": "the bare engine, one prompt at a time",
            "autoglm / direct": "autoglm against the bare engine",
            "autoglm / run_batch": "autoglm against the batch runner, same settings",
            "autoglm / run_batch_defaults": "autoglm against the batch runner, as it comes",
            "autoglm / serial": "autoglm against one prompt at a time",
            "autoglm: processor time for 1,000 tokens / direct: processor time for 1,000 tokens": (
                "processor time, autoglm against the bare engine"
            ),
        },
    ),
    "prefixes": (
        "Many groups of prompts with a system message each, more than the KV cache holds",
        {
            "arrival: hits": "prompt tokens found in vLLM's cache, in order of arrival",
            "autoglm: hits": "… autoglm's order",
            "sorted: hits": "… handed in group by group",
            "autoglm / arrival": "tokens a second, autoglm's order against that of arrival",
            "autoglm: processor time for 1,000 tokens / arrival: processor time for 1,000 tokens": (
                "processor time, autoglm's order against that of arrival"
            ),
        },
    ),
    "durable_queue": (
        "The queue alone: simulated engine without delay, each commit synced to the disk",
        {
            "submit, 32 x 16 in flight": "durable submissions, 32 connections with 16 in flight",
            "submit, 32 x 16 in flight / raw group commit": (
                "… against SQLite alone committing the same rows 512 at a time"
            ),
            "serial submit": "durable submissions, one after the other",
            "open loop at 21,500/s: p99": "p99 of a durable submission at 21,500 a second",
            "raw group commit of 512: p99": "… p99 of SQLite alone committing 512",
            "whole life, 512 in flight": "whole lives: submitted, run, recorded, answered",
            "whole life, 512 in flight / huey": "… against Huey on SQLite, as durable",
            "whole life, 512 in flight / saq": "… against SAQ on Redis with `appendfsync always`",
        },
    ),
    "backlog": (
        "Five million pending tasks",
        {
            "insert 64 at 5,000,000 / insert 64 at 1,000": "storing 64, against 1,000 pending",
            "claim 64 at 5,000,000 / claim 64 at 1,000": "claiming 64, against 1,000 pending",
            "record 64 at 5,000,000 / record 64 at 1,000": "recording 64, against 1,000 pending",
            "memory of the server at 5,000,000": "memory of the server",
            "kill to first dispatch at 5,000,000": "from `kill -9` to the first dispatch",
        },
    ),
    "dispatch": (
        "Who is next: five million pending tasks of ten thousand tenants",
        {
            "dispatched, 5,000,000 of 10,000 tenants": "dispatched",
            "dispatched, 5,000,000 of 10,000 tenants / dispatched, 1,000 of one tenant": (
                "… against a thousand tasks of one tenant"
            ),
            "deciding alone, 5,000,000 of 10,000 tenants": "deciding alone",
            "deciding alone, 1,000 of one tenant": "… with a thousand tasks of one tenant",
            "a look at all lanes": "a new scheduler's look at all tenants",
        },
    ),
    "scheduling": (
        "Order: an hour of conversation and code traces replayed in virtual time",
        {
            "two kinds at 0.95: mean / fifo": (
                "mean normalised latency of both at 0.95 of saturation, against first come, first"
                " served"
            ),
            "two kinds at 0.95: mean / fifo, clairvoyant": "… of who knows all lengths ahead",
            "two kinds at 0.95: longest wait / fifo": "longest wait",
            "two kinds at 0.95: longest wait / fifo, clairvoyant": (
                "… of who knows all lengths ahead"
            ),
            "two kinds on 128 slots, 10,000 prefilled/s: mean / fifo": (
                "mean on the simulated engine as it comes: 128 slots, 10,000 prefilled a second"
            ),
            "two kinds on 128 slots, 10,000 prefilled/s: longest wait / fifo": "… longest wait",
            "azure_conv_2023 at 0.95: mean / fifo": "conversations alone: mean",
            "azure_code_2023 at 0.95: mean / fifo": "code alone: mean",
            "urgent over questions: p99 / alone": (
                "p99 of urgent conversations over a file of short questions, against none there"
            ),
            "urgent over conversations: p99 / alone": "… over a file of conversations",
        },
    ),
    "kill": ("`kill -9` of the server under load, again and again", {}),
    "supervision": (
        "Something dies: actors under load, prompts that kill or hang the engine",
        {
            "restart of frontdoor, p99": "p99 of a restart of the frontdoor",
            "restart of monitor, p99": "p99 of a restart of the monitor",
            "restart of reader, p99": "p99 of a restart of the reader",
            "restart of retention, p99": "p99 of a restart of the retention",
            "restart of persister, p99": "p99 of a restart of the persister",
            "restart of scheduler, p99": "p99 of a restart of the scheduler",
            "restart of batcher-1, p99": "p99 of a restart of the batcher",
            "machine: woke late, p99": "… p99 of the machine's own lateness in that run",
            "engine processes meanwhile": "engine processes during all of those restarts",
            "1 x crash: most restarts for one poison": (
                "engine restarts at most, one prompt in 1,000 crashes it"
            ),
            "3 x crash: most restarts for one poison": "… for each, three crash it",
            "1 x hang: most restarts for one poison": "… one hangs it",
            "1 x crash: least of the others answered": "… of the 999 others, answered",
            "1 x crash: failures charged to others": "… failures charged to them",
            "held, actors: starts meanwhile": "starts of an actor while its breaker was open",
            "held, engine: starts meanwhile": "starts of an engine while its breaker was open",
        },
    ),
    "checkpoint": (
        "Long answers on the simulated engine, 64 at once, 5 ms a token",
        LONG_ANSWERS,
    ),
    "checkpoint_vllm": ("Long answers of SmolLM2 on vLLM, 8 at once", LONG_ANSWERS),
    "top": (
        "Watching: processor time with `autoglm top` open on a server at work, against none",
        {
            "server with none watching": "the server with none watching",
            "top costs the server": "what a view adds, turn by turn",
            "one status": "one status",
            "run, panel / run, pipe": "processor time of `run`, with its panel against a pipe",
        },
    ),
    "mailbox": (
        "A mailbox, one to one",
        {
            "mailbox": "messages",
            "mailbox / ceiling": "… against a plain loop over a deque",
            "mailbox / asyncio.Queue": "… against asyncio.Queue",
            "mailbox / pykka": "… against pykka",
        },
    ),
    "startup": (
        "From the command line to the end of `autoglm status`",
        {
            "status, installed, no server": "installed, no server there",
            "status, installed, server": "… a server there, and its picture drawn",
            "status, archive, no server": "out of the one file, no server there",
            "status, archive, server": "… a server there",
            "python -c pass": "`python -c pass`",
        },
    ),
    "simulation": ("The deterministic simulation", {}),
    "fuzz": ("Fuzzed input at the door", {}),
}
"""By benchmark: a heading, and the figures with what the README calls them; none named: all."""


def rendered(results: Path = HERE / "results") -> str:
    """What stands between the marks."""
    tables = [
        table(heading, json.loads(path.read_text()), names)
        for name, (heading, names) in SHOWN.items()
        if (path := results / f"{name}.json").exists()
    ]
    return "\n".join(tables)


def table(heading: str, result: dict[str, Any], names: dict[str, str]) -> str:
    """One benchmark's table in Markdown."""
    by_name = {figure["name"]: figure for figure in result["figures"]}
    shown = names or {name: name for name in by_name}
    rows = [
        f"| {words} | {value(by_name[name], 'median')} | {span(by_name[name])} |"
        for name, words in shown.items()
        if name in by_name
    ]
    return "\n".join(
        (f"**{heading}**\n", "| | median | lowest to highest |", "|---|---|---|", *rows, "")
    )


def value(figure: dict[str, Any], which: str) -> str:
    unit = "times" if figure["unit"] == "x" else figure["unit"]
    return f"{number(figure[which])} {unit}".strip()


def span(figure: dict[str, Any]) -> str:
    """Nothing for what was measured once."""
    if figure["lowest"] == figure["highest"]:
        return ""
    return f"{number(figure['lowest'])} to {number(figure['highest'])}"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def main() -> int:
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    README.write_text(f"{before}{BEGIN}\n{rendered()}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
