"""From a YAML file and `--set key.path=value` to the configuration.

Unknown keys are refused with the nearest right name, wrong values with the key's full path, both
with the line where they stand in the file. What a later version will know is refused with a
sentence that says so, because a limit that is accepted and then ignored would be a broken promise.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, TypeVar, cast

import msgspec

from autoglm.errors import ConfigError
from autoglm.text import one_line
from runtime.config import Config
from runtime.configfile import (
    DEPTH_MAX,
    NAME_CHARS_SHOWN,
    NOT_YAML,
    ConfigFile,
    fault,
    read_file,
    too_deep,
)
from runtime.duration import decode_duration
from runtime.priorityconfig import Share, check_rules, rule_sections, with_shares, written_out
from runtime.queueconfig import QueueConfig, TenantConfig, sections, with_built_in

T = TypeVar("T")
_LATER = {
    "callback_url": "callbacks",
}
DEFAULT, COMMAND_LINE = "default", "command line"
_MISSING = "Object missing required field"


class Loaded(NamedTuple):
    """A configuration, and by path where what was given stands: `autoglm.yaml:3`."""

    config: Config
    given: Mapping[str, str]

    def source(self, at: str) -> str:
        """Where the value of `at` is from."""
        path = at
        while path:
            if path in self.given:
                return self.given[path]
            path = path[: max(path.rfind("."), 0)]
        return DEFAULT


def load(file: Path | None = None, settings: Iterable[str] = ()) -> Config:
    """The configuration from `file` (YAML), then each `key.path=value` of `settings` in order.

    Raises ConfigError with one line that names the file or key and says what is wrong.
    """
    return load_with_sources(file, settings).config


def load_with_sources(file: Path | None = None, settings: Iterable[str] = ()) -> Loaded:
    """Like `load`, and where each value is from."""
    read = read_file(file) if file else None
    tree = read.tree if read else {}
    values: dict[str, object] = {}
    for setting in settings:
        tree, path, values[path] = _with(tree, setting)
    try:
        config = _config_of(tree)
    except ConfigError as error:
        raise _placed(error, read, values) from None
    given: dict[str, str] = {}
    for path, _ in leaves(read.tree if read else {}):
        place = read.locate(path) if read else None
        given[path] = f"{file}:{place.line}" if place else str(file)
    for path, value in values.items():
        given |= {leaf: COMMAND_LINE for leaf, _ in leaves(value, path)}
    return Loaded(config, given)


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """The values below the sections of a tree, by path. A section without any is a value."""
    if not isinstance(value, dict) or not value:
        yield path, value
        return
    for key, inner in cast("dict[object, object]", value).items():
        name = one_line(str(key), NAME_CHARS_SHOWN)
        yield from leaves(inner, f"{path}.{name}" if path else name)


def _placed(error: ConfigError, file: ConfigFile | None, values: Iterable[str]) -> ConfigError:
    """`error` with the place in the file that is to blame, if one is."""
    at = error.at or ""
    by_setting = any(path == at or path.startswith((f"{at}.", f"{at}[")) for path in values)
    by_setting = by_setting or any(at.startswith((f"{path}.", f"{path}[")) for path in values)
    if file is None or by_setting:
        return ConfigError(f"configuration: {error}", at=error.at)
    place = file.locate(at, key=error.unknown)
    return fault(file.path, place, str(error), error.at)


def _config_of(tree: dict[str, Any]) -> Config:
    _refuse_unknown(tree, Config, "")
    for name, kind in (("queues", QueueConfig), ("tenants", TenantConfig)):
        for path, section in sections(name, tree.get(name)).items():
            _refuse_unknown(section, kind, path)
            _convert(section, kind, path)
    tree = written_out(tree)
    for path, section, kind in rule_sections(tree):
        _refuse_unknown(section, kind, path)
        _convert(section, kind, path)
    factors = tree.get("priority_factors")
    if isinstance(factors, dict):
        for name, share in cast("dict[object, object]", factors).items():
            path = f"priority_factors.{one_line(str(name), NAME_CHARS_SHOWN)}."
            _convert(share, cast("type[float]", Share), path)
    config = _convert(tree, Config)
    rules = config.priority_rules
    queues = with_built_in(with_shares(config.queues, rules))
    check_rules(rules, config.priority_conditions, config.priority_factors, queues)
    return msgspec.structs.replace(config, queues=queues)


def _convert(value: object, kind: type[T], path: str = "") -> T:
    """`path` ends with a dot."""
    try:
        return msgspec.convert(value, kind, strict=False, dec_hook=decode_duration)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        at = f"{path}{where.strip('`.')}".rstrip(".")
        if what.startswith(_MISSING):
            name = what.removeprefix(_MISSING).strip(" `")
            raise ConfigError(f"{at}.{name} is missing".lstrip("."), at=at) from None
        said = f"{what[:1].lower()}{what[1:]}"
        raise ConfigError(f"{at}: {said}" if at else said, at=at) from None


def _with(tree: Mapping[str, Any], setting: str) -> tuple[dict[str, Any], str, object]:
    """The tree with it, its path and its value."""
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {setting}: expected key.path=value, e.g. batch.window_ms=5")
    try:
        data = text.encode()
    except UnicodeEncodeError:  # it comes from a command line that is not UTF-8
        raise ConfigError(f"--set {setting!a}: not valid Unicode") from None
    try:
        if too_deep(data) is not None:
            raise ConfigError(f"--set {path.strip()}: nested more than {DEPTH_MAX} deep")
        value = msgspec.yaml.decode(data)
    except NOT_YAML:
        value = text
    whole = branch = dict(tree)
    for key in keys[:-1]:
        inner = branch.get(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {setting}: {key} is a value, not a section")
        # A copy: in the file, an alias may have the same section stand elsewhere too.
        branch[key] = branch = dict(cast("dict[str, Any]", inner))
    branch[keys[-1]] = value
    return whole, ".".join(one_line(key, NAME_CHARS_SHOWN) for key in keys), value


def _refuse_unknown(tree: Mapping[str, Any], section: type[msgspec.Struct], path: str) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(section)}
    for key, value in tree.items():
        name = f"{path}{one_line(str(key), NAME_CHARS_SHOWN)}"
        if key not in fields:
            raise ConfigError(_unknown(name, str(key), path, fields), at=name, unknown=True)
        kind = fields[key].type
        if _is_section(kind) and isinstance(value, dict):
            _refuse_unknown(cast("dict[str, Any]", value), kind, f"{name}.")


def _is_section(kind: object) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _unknown(name: str, key: str, path: str, fields: Iterable[str]) -> str:
    if name in _LATER:
        return f"{name}: {_LATER[name]} are not available in this version yet"
    near = difflib.get_close_matches(key, list(fields), n=1)
    hint = f"did you mean {path}{near[0]}?" if near else f"known here: {', '.join(sorted(fields))}"
    return f"unknown key {name}; {hint}"
