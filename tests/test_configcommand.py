"""`autoglm config`: what it shows is what holds, and a fault is found where it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.configdocs import rendered
from autoglm import cli
from autoglm.errors import ConfigError
from runtime.config import Config
from runtime.configfields import Field, fields, schema
from runtime.configload import load, load_with_sources
from tests.commands import main_in

ROOT = Path(__file__).parent.parent
ALL_FIELDS = list(fields())


def write(folder: Path, text: str) -> Path:
    path = folder / "autoglm.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("field", ALL_FIELDS, ids=lambda field: field.path)
def test_every_field_says_what_it_is_for(field: Field) -> None:
    assert field.text.endswith(".")


def test_the_document_is_made_from_the_code() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == rendered()


@pytest.mark.parametrize(
    "field",
    [each for each in ALL_FIELDS if each.default is not None and "NAME" not in each.path],
    ids=lambda field: field.path,
)
def test_the_default_that_is_told_is_the_default(field: Field) -> None:
    if "[]" not in field.path:
        assert load(settings=[f"{field.path}={field.default}"]) == Config()


def test_the_schema_knows_every_key_that_a_file_may_have() -> None:
    def keys(of: dict[str, Any]) -> set[str]:
        return set(of["properties"])

    found = schema()
    assert keys(found["$defs"]["Config"]) == set(Config.__struct_fields__)
    assert all(each["additionalProperties"] is False for each in found["$defs"].values())
    rules = found["$defs"]["Config"]["properties"]["priority_rules"]["additionalProperties"]
    assert [sorted(each) for each in rules["anyOf"]] == [["maximum", "minimum", "type"], ["$ref"]]


def test_what_is_shown_is_a_file_that_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, "queues: {'ö: \\x1b[31m': {max_wait: 90, overflow: archive}}\n")
    given = ["tenants.a.tasks_per_s=2.5", "priority_rules.pay=1", "retention.results=30d"]
    given += ["priority_conditions=[{priority: 1, kind: '# no comment'}]", "engine.threads='null'"]
    settings = [part for setting in given for part in ("--set", setting)]
    assert main_in(tmp_path, "config", "show", "--config", str(file), *settings) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert load(write(tmp_path, shown)) == load(
        write(tmp_path, "queues: {'ö: \\x1b[31m': {max_wait: 90, overflow: archive}}\n"), given
    )


def test_each_value_comes_with_where_it_is_from(tmp_path: Path) -> None:
    file = write(tmp_path, "engine:\n  model: tiny\n  kind: vllm\npriority_rules:\n  pay: 1\n")
    loaded = load_with_sources(file, ["engine.kind=simulated", "queues={a: {weight: 2}}"])
    assert {
        at: loaded.source(at)
        for at in ("engine.model", "engine.kind", "engine.dtype", "queues.a.weight")
    } == {
        "engine.model": f"{file}:2",
        "engine.kind": "command line",
        "engine.dtype": "default",
        "queues.a.weight": "command line",
    }
    assert loaded.source("queues.a.overflow") == "default"
    assert loaded.source("priority_rules.pay.priority") == f"{file}:5"


def test_one_section_can_be_shown_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_in(tmp_path, "config", "show", "batch", "--json", "--set", "batch.max_size=4") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"key": "batch.window_ms", "value": 10, "from": "default"},
        {"key": "batch.max_size", "value": 4, "from": "command line"},
    ]
    assert main_in(tmp_path, "config", "show", "bacth") == cli.EXIT_USAGE
    assert "did you mean batch?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("batch:\n  window_ms: -3\n", (2, 14), "batch.window_ms: expected"),
        ("batch:\n  windwo_ms: 3\n", (2, 3), "did you mean batch.window_ms?"),
        ("engine: {model: a, model: b}\n", (1, 20), "stands in line 1 already"),
        ("\nengine: [\n", (3, 1), "this is not YAML: did not find expected node"),
        ("a: b: c\n", (1, 5), "this is not YAML: mapping values are not allowed"),
        ("- 1\n", (1, 1), "expected keys and values"),
        ("queues:\n  a:\n    overflow: reject\n", (3, 15), "queues.a.max_wait is missing"),
        ("queues:\n  a:\n    weight: 1\n    overfolw: wait\n", (4, 5), "queues.a.overflow?"),
        ("priority_rules:\n  a: 1\n  b: 12\n", (3, 6), "priority_rules.b.priority: expected"),
        ("priority_factors:\n  a: 1\n  b: x\n", (3, 6), "priority_factors.b: expected"),
        (
            "priority_conditions:\n  - kind: a\n    priority: 1\n  - kind: b\n",
            *((4, 5), "priority_conditions[1].priority is missing"),
        ),
        ("a: &a\n  b: *a\n", (1, 1), "unknown key a"),
        ("queues: " + "[" * 100_000, (1, 108), "nested more than 100 deep"),
        ("\n" + "- " * 20_000, (2, 201), "nested more than 100 deep"),
    ],
)
def test_a_fault_is_found_where_it_stands(
    text: str, place: tuple[int, int], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, text)
    assert main_in(tmp_path, "config", "check", str(file)) == cli.EXIT_USAGE
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"autoglm: {file}:{place[0]}:{place[1]}: ")
    assert said in output.err
    assert main_in(tmp_path, "config", "check", str(file), "--json") == cli.EXIT_USAGE
    found = json.loads(capsys.readouterr().out)
    assert (found["valid"], found["line"], found["column"]) == (False, *place)


def test_a_file_in_order_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "batch: {window_ms: 3}\n")
    assert main_in(tmp_path, "config", "check", str(file)) == 0
    assert capsys.readouterr().out == f"{file} is in order\n"
    assert main_in(tmp_path, "config", "check") == cli.EXIT_USAGE


def test_the_file_is_not_blamed_for_what_the_command_line_says(tmp_path: Path) -> None:
    file = write(tmp_path, "batch: {window_ms: 3}\nqueues: {a: {weight: 1}}\n")
    for setting in ("batch.window_ms=-1", "queues.a.overflow=drop", "batch=5"):
        with pytest.raises(ConfigError) as caught:
            load(file, [setting])
        assert str(caught.value).startswith(f"configuration: {setting.partition('=')[0]}: ")


def test_a_setting_changes_one_of_two_sections_that_an_alias_makes_the_same(tmp_path: Path) -> None:
    file = write(tmp_path, "queues: {a: &x {weight: 4}, b: *x}\n")
    queues = load(file, ["queues.a.weight=5"]).queues
    assert (queues["a"].weight, queues["b"].weight) == (5, 4)
