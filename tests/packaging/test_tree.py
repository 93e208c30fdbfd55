"""What the packaging promises about the tree."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_stands_the_same_in_both_places() -> None:
    import simswitch

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == simswitch.__version__


def test_directives_of_the_compiler_stand_in_no_source() -> None:
    """A directive in a file's head would override the checked build."""
    for path in (ROOT / "engine").rglob("*.p[yx][xd]"):
        assert not re.search(r"^#\s*(cython|distutils):", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_every_extension_has_its_types() -> None:
    """Extensions that Python code imports; those that only other extensions cimport show Python nothing."""
    imported = set()
    for path in [*(ROOT / "engine").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        imported |= set(
            re.findall(r"^\s*from (simswitch[.\w]+) import", path.read_text(encoding="utf-8"), re.MULTILINE)
        )
    for path in (ROOT / "engine").rglob("*.pyx"):
        module = ".".join(path.relative_to(ROOT / "engine").with_suffix("").parts)
        if module in imported:
            assert path.with_suffix(".pyi").exists(), f"{module} has no .pyi"


def test_no_tracked_text_names_a_registry() -> None:
    hosts = re.compile(r"pypi\.org|pythonhosted|registry\.npmjs", re.IGNORECASE)
    for name in ("pyproject.toml", "setup.py", "Makefile", "MANIFEST.in", ".ci/run"):
        assert not hosts.search((ROOT / name).read_text(encoding="utf-8")), name


@pytest.mark.parametrize(
    ("words", "said"), [(["--help"], "Exit codes: 0 done"), (["config", "--example"], "[service]")]
)
def test_help_and_settings_import_nothing_heavy(words: list[str], said: str) -> None:
    """What any command imports `simswitch serve` holds for as long as it runs."""
    program = (
        f"import sys; sys.argv = ['simswitch', *{words}]\n"
        "from simswitch.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end\n"
        "packages = {name.partition('.')[0] for name in sys.modules}\n"
        "heavy = packages & {'grpc', 'google', 'numpy', 'matplotlib', 'pydantic'}\n"
        "assert not heavy, heavy\n"
        "assert not [name for name in sys.modules if name.startswith('simswitch.core.')]\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert said in " ".join(found.stdout.split())
