"""What an application takes on when it imports autoglm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ALLOWED = {"autoglm", "msgspec", "anyio"}
OF_ANYIO = {"idna", "sniffio", "typing_extensions", "exceptiongroup"}


def python(code: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_by(statement: str, cwd: Path = ROOT) -> set[str]:
    """The top-level modules from outside the standard library that `statement` loads."""
    code = (
        f"import sys; before = set(sys.modules)\n{statement}\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    return set(python(code, cwd).split()) - sys.stdlib_module_names


def test_importing_autoglm_takes_msgspec_and_anyio_alone() -> None:
    found = imported_by("import autoglm")
    assert found - OF_ANYIO <= ALLOWED
    assert "autoglm" in found


def test_the_commands_of_a_client_take_no_more() -> None:
    assert imported_by("import autoglm.cli") - OF_ANYIO <= ALLOWED


def test_an_application_with_packages_of_the_same_names_is_not_disturbed(tmp_path: Path) -> None:
    for name in ("model", "runtime", "actors"):
        (tmp_path / f"{name}.py").write_text(f"mine = '{name}'")
    (tmp_path / "model.py").unlink()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "__init__.py").write_text("mine = 'model'")
    code = (
        "import autoglm, model, runtime, actors\n"
        "print(autoglm.Client.__name__, model.mine, runtime.mine, actors.mine)"
    )
    assert python(code, tmp_path).split() == ["Client", "model", "runtime", "actors"]


def test_the_client_s_room_knows_none_of_the_others() -> None:
    for path in (ROOT / "autoglm").glob("*.py"):
        lines = path.read_text().splitlines()
        words = {line.split()[1].partition(".")[0] for line in lines if is_import(line)}
        assert not words & {"runtime", "model", "actors"}, path.name


def is_import(line: str) -> bool:
    return line.lstrip().startswith(("import ", "from "))
