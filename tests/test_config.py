"""The configuration: every key has a default, and what is wrong is said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import ConfigError
from runtime.config import Config, Duration, RetentionConfig
from runtime.configload import load
from runtime.priorityconfig import KindRule
from runtime.queueconfig import QueueConfig


def write(folder: Path, text: str) -> Path:
    path = folder / "autoglm.yaml"
    path.write_text(text)
    return path


def refusal(*settings: str, file: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_nothing_given_is_all_defaults() -> None:
    assert load() == Config()


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, "")) == Config()


def test_later_settings_win_over_earlier_ones_and_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "batch: {window_ms: 1, max_size: 4}\n")
    config = load(file, ["batch.window_ms=2", "batch.window_ms=3"])
    assert (config.batch.window_ms, config.batch.max_size) == (3, 4)


def test_a_value_is_read_as_yaml_reads_it() -> None:
    config = load(settings=["engine.kind=simulated", "engine.threads='0'", "engine.compile=true"])
    assert (config.engine.kind, config.engine.threads, config.engine.compile) == (
        *("simulated", "0", True),
    )


def test_what_has_ended_is_kept_for_ever_or_for_a_time_in_words() -> None:
    assert load().retention == RetentionConfig(None, None)
    config = load(settings=["retention.results=30d", "retention.events=90"])
    assert config.retention == RetentionConfig(Duration("720h"), Duration("1.5m"))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("batch.windwo_ms=1", "did you mean batch.window_ms?"),
        ("btach.window_ms=1", "did you mean batch?"),
        ("zzz=1", "known here: batch, drills, engine, priority_conditions, priority_factors,"),
        ("batch.window_ms=-1", "batch.window_ms: expected"),
        ("engine.max_num_seqs=0", "engine.max_num_seqs: expected"),
        ("engine.kind=llama", "engine.kind: invalid"),
        ("batch=5", "batch: expected"),
        ("batch.window_ms.x=5", "batch.window_ms"),
        ("batch.window_ms", "expected key.path=value"),
        ("=5", "expected key.path=value"),
        ("a..b=5", "expected key.path=value"),
        ("retention.results=soon", "retention.results: no duration"),
        ("retention.events=-1", "retention.events: a duration of -1 is out of range"),
        ("retention.events=true", "retention.events: expected a duration"),
        ("retention.evnets=1d", "did you mean retention.events?"),
        ("queues.x=1", "queues.x: expected a section"),
        ("queues=1", "queues: expected"),
        ("queues.x.max_wait=soon", "queues.x.max_wait: no duration: 'soon'"),
        ("queues.x.overflow=archive", "queues.x.max_wait is missing: overflow is archive"),
        ("queues.x.overflow=drop", "queues.x.overflow: invalid enum value"),
        ("queues.normal.weight=0", "queues.normal.weight: expected"),
        ("tenants.a.wieght=1", "did you mean tenants.a.weight?"),
        ("tenants.a.max_running=0", "tenants.a.max_running: expected"),
        ("queues.x.degarde=queue", "did you mean queues.x.degrade?"),
        ("queues.x.degrade=often", "queues.x.degrade: invalid"),
        ("queues.normal.degrade=default", "queues.normal.default_text is missing"),
        ("queues={'': {}}", "a name has from 1 to 200 characters"),
        ('queues={"a\\nb": {}}', "a name holds no control character"),
        ("scheduler.policy=best", "scheduler.policy: invalid"),
        ("priority_rules=1", "priority_rules: expected"),
        ("priority_rules.pay=12", "priority_rules.pay.priority: expected"),
        ("priority_rules.pay=true", "priority_rules.pay.priority: expected"),
        ("priority_rules.pay=high", "priority_rules.pay.priority: expected"),
        ("priority_rules.pay=", "priority_rules.pay: expected a priority or a section"),
        ("priority_rules.pay={}", "priority_rules.pay says nothing"),
        ("priority_rules.pay={priorty: 1}", "did you mean priority_rules.pay.priority?"),
        ("priority_rules.pay={share: 0}", "priority_rules.pay.share: expected"),
        ("priority_rules.pay={share: .nan}", "priority_rules.pay.share: expected"),
        ("priority_rules.pay={share: 2, queue: core}", "give it or queue"),
        ("priority_rules.pay.queue=croe", "priority_rules.pay.queue: no queue croe"),
        ("priority_rules.core.share=3", "set queues.core.weight"),
        ("priority_rules={'': 1}", "a name has from 1 to 200 characters"),
        ('priority_rules={"a\\nb": 1}', "a name holds no control character"),
        ("priority_conditions=1", "priority_conditions: expected"),
        ("priority_conditions=[1]", "priority_conditions[0]: expected a section"),
        (
            "priority_conditions=[{kind: a}]",
            "priority_conditions[0].priority is missing",
        ),
        ("priority_conditions=[{priority: 1}]", "priority_conditions[0] has no condition"),
        ("priority_conditions=[{priority: 1, kid: a}]", "did you mean priority_conditions[0].kind"),
        ("priority_conditions=[{priority: 1, queue: a}]", "priority_conditions[0].queue: no queue"),
        (
            "priority_conditions=[{priority: 1, deadline_within: soon}]",
            "priority_conditions[0].deadline_within: no duration",
        ),
        ("priority_factors.a=0", "priority_factors"),
        ("priority_factors.a=.nan", "priority_factors"),
        ("priority_factors={'': 1}", "a name has from 1 to 200 characters"),
        ("queues=" + "[" * 100_000, "--set queues: nested more than 100 deep"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, said: str) -> None:
    assert said in refusal(setting)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "expected keys and values"),
        ("{a: [", "is not YAML"),
        ("engine: {model: [1]}", "engine.model: expected"),
        ("1: 2", ":1:1: unknown key 1"),
        ('engine: {"a\\n": 1}', ":1:10: unknown key engine.a; known here"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(file=write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "No such file" in refusal(file=tmp_path / "none.yaml")


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        *("engine", "batch", "scheduler", "retry", "retention", "queues", "x"),
        *("priority_rules", "priority_conditions", "priority_factors"),
    ]
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_tree_is_a_configuration_or_refused_in_one_line(tree: dict[str, Any]) -> None:
    settings = [f"{key}={msgspec.json.encode(value).decode()}" for key, value in tree.items()]
    try:
        load(settings=settings)
        said = "taken"
    except ConfigError as error:
        said = str(error)
    assert said
    assert "\n" not in said


@given(st.text(max_size=30))
def test_any_text_is_a_setting_or_refused_in_one_line(text: str) -> None:
    try:
        load(settings=[text])
        said = "taken"
    except ConfigError as error:
        said = str(error)
    assert said


def test_three_queues_are_there_without_being_configured_and_others_beside_them() -> None:
    assert list(load().queues) == ["core", "normal", "background"]
    assert load() == Config()
    config = load(settings=["queues.mine.degrade=cached", "queues.core.degrade=fail_fast"])
    assert {name: queue.degrade for name, queue in config.queues.items()} == {
        "core": "fail_fast",
        "normal": "queue",
        "background": "queue",
        "mine": "cached",
    }


def test_a_kind_with_a_share_makes_a_queue_of_that_weight() -> None:
    config = load(
        settings=["priority_rules.pay={priority: 1, share: 40}", "queues.pay.max_running=2"]
    )
    assert config.queues["pay"] == QueueConfig(weight=40, max_running=2)
    assert config.priority_rules == {"pay": KindRule(priority=1, share=40)}
    said = refusal("priority_rules.pay.share=40", "queues.pay.weight=3")
    assert "priority_rules.pay.share: queues.pay.weight says the same" in said


def test_a_rule_is_a_number_or_a_section() -> None:
    assert load(settings=["priority_rules={a: 1, b: {priority: 1}}"]).priority_rules == {
        "a": KindRule(priority=1),
        "b": KindRule(priority=1),
    }


def test_the_example_of_tiers_loads() -> None:
    queues = load(Path(__file__).parent.parent / "examples" / "tiers.yaml").queues
    core, normal = queues["core"], queues["normal"]
    assert (core.max_running, core.max_wait, core.overflow) == (100, Duration("3s"), "refuse_lower")
    assert (normal.max_running, normal.max_wait, normal.overflow) == (20, Duration(10), "archive")


def test_a_plain_install_has_no_limits() -> None:
    config = load()
    assert (config.scheduler.max_pending, config.scheduler.max_pending_bytes) == (None, None)
    assert config.tenants == {}
    assert {(q.max_running, q.max_wait, q.overflow) for q in config.queues.values()} == {
        (None, None, "wait"),
    }
