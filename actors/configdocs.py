"""Writes docs/configuration.md: `python -P -m actors.configdocs > docs/configuration.md`.

A test holds the file against what this makes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from runtime.configfields import Field, fields

_HEAD = """\
# Configuration

<!-- made by: python -P -m actors.configdocs > docs/configuration.md -->

One YAML file, given with `--config FILE.yaml`; `--set key.path=value` on the command line wins over
it, the last one over those before. Everything has a default, so no file is needed. A key that is
unknown, a value that can't be and a key that stands there twice are refused with the line, the
column and, for a key, the nearest right name (exit code 2).

```text
autoglm config show [SECTION]       every value, and where it comes from; what it prints is a file
autoglm config check FILE.yaml      whether a file is in order
autoglm config schema               the JSON schema, for an editor that completes and checks
```

With `--json`, `show` prints `key`, `value` and `from`, a line for each, and `check` prints `file`,
`valid` and, where that is false, `key`, `line`, `column` and `message`. Durations are written `90`,
`30s`, `10m`, `2h` or `30d`. An editor with a YAML language server takes the schema from a first
line such as `# yaml-language-server: $schema=autoglm.schema.json`.

```yaml
engine: {max_num_seqs: 64}
retention: {results: 30d}
queues:
  core: {max_wait: 3s, overflow: reject}
tenants:
  research: {weight: 2, tokens_per_min: 100000}
```

[operating.md](operating.md) tells what queues, tenants, rules and drills are for.
"""


def rendered() -> str:
    """The whole file."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    everything = list(fields())
    names = [f"[`{field.path}`](#{_anchor(field.path)})" for field in everything if not field.kind]
    yield f"Sections: {', '.join(names)}.\n"
    yield "## At the top\n"
    yield from _table([f for f in everything if f.kind and "." not in f.path], "")
    for section in (field for field in everything if not field.kind):
        yield f"## {section.path}\n"
        yield f"{section.text}\n"
        mine = [f for f in everything if f.kind and f.path.rpartition(".")[0] in _below(section)]
        if mine:
            prefix = mine[0].path.rpartition(".")[0]
            yield from _table(mine, f"{prefix}.")


def _below(section: Field) -> tuple[str, ...]:
    return (section.path, f"{section.path}.NAME", f"{section.path}[]")


def _table(rows: list[Field], prefix: str) -> Iterator[str]:
    yield f"| `{prefix}…` | what may stand there | default | |" if prefix else "| | | default | |"
    yield "|---|---|---|---|"
    for field in rows:
        name = field.path.removeprefix(prefix)
        default = "must be given" if field.default is None else f"`{field.default}`"
        yield f"| `{name}` | {field.kind} | {default} | {field.text} |"
    yield ""


def _anchor(path: str) -> str:
    return path.replace(".", "")


if __name__ == "__main__":
    sys.stdout.write(rendered())
