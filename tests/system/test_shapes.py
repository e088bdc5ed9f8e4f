"""`--json` prints what docs/commands.md says, and a backup is a server's data again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from actors.commandsdocs import SHAPES
from tests.system.real import INSTANT, Server

pytestmark = pytest.mark.system

KINDS = {name: kind for names, _, kind in SHAPES for name in names}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("shapes")
    with Server(folder / "data", *INSTANT, "--set", "engine.faults=true") as server:
        server.ask("submit", "fine", "--wait")
        server.ask("submit", "[[invalid]]", "--wait")
        yield server


def ids(server: Server, state: str) -> list[str]:
    lines = server.ask("list", "--json", "--state", state).stdout.splitlines()
    return [json.loads(line)["id"] for line in lines]


@pytest.mark.parametrize(
    "name", ["list", "export", "events", "status", "queues", "tenants", "dead list", "queue list"]
)
def test_a_command_prints_the_fields_of_its_shape(server: Server, name: str) -> None:
    lines = server.ask(*name.split(), "--json").stdout.splitlines()
    assert lines
    assert_of(KINDS[name], lines)


def assert_of(kind: type[msgspec.Struct], lines: list[str]) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(kind)}
    omits = kind.__struct_config__.omit_defaults
    for line in lines:
        found = set(json.loads(line))
        assert found <= fields
        assert omits or found == fields


def test_commands_that_take_an_id_print_the_fields_of_theirs(server: Server) -> None:
    done, dead = ids(server, "succeeded")[0], ids(server, "dead")[0]
    for name, asked in (
        ("get", ["get", done]),
        ("dead show", ["dead", "show", dead]),
        ("cancel ID", ["cancel", done]),
        ("submit", ["submit", "more"]),
        ("prune", ["prune", "--older-than", "30d"]),
    ):
        assert_of(KINDS[name], server.ask(*asked, "--json").stdout.splitlines())


def test_every_command_takes_a_shortened_id(server: Server) -> None:
    id = ids(server, "dead")[0]
    for part in (id[-8:], id[-6:].upper(), id[:25]):
        for asked in (["get", part], ["dead", "show", part], ["events", "--task", part]):
            done = server.ask(*asked, "--json")
            assert (done.returncode, id in done.stdout) == (0, True)
    many = server.ask("get", id[:6])
    assert (many.returncode, many.stdout) == (2, "")
    assert "is short for several ids" in many.stderr


def test_a_backup_of_a_running_server_is_a_server_s_data(server: Server, tmp_path: Path) -> None:
    copy = tmp_path / "data" / "queue.sqlite3"
    copy.parent.mkdir(mode=0o700)
    assert server.ask("backup", str(copy)).returncode == 0
    refused = server.ask("backup", str(copy))
    assert (refused.returncode, "is there already" in refused.stderr) == (2, True)
    before = set(server.ask("list").stdout.splitlines())
    with Server(tmp_path / "data", *INSTANT) as restored:
        assert set(restored.ask("list").stdout.splitlines()) == before
        assert restored.ask("submit", "goes on", "--wait").returncode == 0
    missing = server.ask("backup", f"{tmp_path}/nowhere/")
    assert (missing.returncode, "no folder" in missing.stderr) == (2, True)
    assert not (tmp_path / "nowhere").exists()


def test_an_export_takes_the_place_of_a_file_only_when_told_to(
    server: Server, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("not to be lost")
    refused = server.ask("export", "-o", str(mine))
    assert (refused.returncode, "--force" in refused.stderr) == (2, True)
    assert mine.read_text() == "not to be lost"
    assert server.ask("export", "-o", str(mine), "--force").returncode == 0
    assert mine.read_text().startswith("id,state,")


def test_a_table_without_a_template_is_not_taken_for_a_file_of_tasks(
    server: Server, tmp_path: Path
) -> None:
    table = tmp_path / "reviews.csv"
    table.write_text("text\ngood\n")
    refused = server.ask("run", str(table), "-o", str(tmp_path / "out.csv"))
    assert (refused.returncode, "--template" in refused.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == [table]
