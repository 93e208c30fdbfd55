"""The locks agree with pyproject.toml, each other and what is installed; the lists beside them are current."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest

from dependencies import licences, lock, sbom
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = {lock.BASE: (), lock.PRODUCTION: ("production",), lock.DEVELOPMENT: ("dev",)}
each_lock = pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)


def asked_for(extras: tuple[str, ...]) -> list[Requirement]:
    """What pyproject.toml names, through the extras of its own that an extra names."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    open_extras, seen = list(extras), set(extras)
    while open_extras:
        for text in PROJECT["optional-dependencies"][open_extras.pop()]:
            requirement = Requirement(text)
            if requirement.name == PROJECT["name"]:
                open_extras += requirement.extras - seen
                seen |= requirement.extras
            else:
                found.append(requirement)
    return found


def here(path: Path) -> dict[str, lock.Release]:
    """What a lock gives this Python on this platform."""
    found = {}
    for release in lock.read_lock(path):
        if not release.marker or Requirement(f"{release.name} ; {release.marker}").marker.evaluate():  # type: ignore[union-attr]
            assert release.name not in found, f"{path.name} gives two releases of {release.name}"
            found[release.name] = release
    return found


@each_lock
def test_a_lock_holds_what_pyproject_asks_for_and_nothing_that_nobody_does(path: Path) -> None:
    releases = lock.read_lock(path)
    requirements = asked_for(LOCKS[path])
    ours = {release.name for release in releases if lock.ROOT in release.via}
    assert ours == {canonicalize_name(requirement.name) for requirement in requirements}, "run `make lock`"
    for requirement in requirements:
        for release in releases:
            if release.name == canonicalize_name(requirement.name):
                assert requirement.specifier.contains(release.version), f"{requirement}: run `make lock`"
    reached = {lock.ROOT}
    while more := {release.name for release in releases if not reached.isdisjoint(release.via)} - reached:
        reached |= more
    assert reached == {lock.ROOT} | {release.name for release in releases}
    assert all(release.hashes for release in releases)


@each_lock
def test_what_a_locked_package_asks_for_is_locked_and_what_is_locked_is_what_is_tested(path: Path) -> None:
    locked = here(path)
    for release in locked.values():
        assert version(release.name) == release.version, "the environment is not the lock's: run `make`"
        for text in requires(release.name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                name = canonicalize_name(requirement.name)
                assert name in locked, f"{release.name} asks for {text}"
                assert requirement.specifier.contains(locked[name].version), f"{release.name} asks for {text}"


def test_one_resolution_for_all_locks() -> None:
    def files(path: Path) -> set[tuple[str, str, tuple[str, ...]]]:
        return {(release.name, release.version, tuple(release.hashes)) for release in lock.read_lock(path)}

    assert files(lock.BASE) < files(lock.PRODUCTION) < files(lock.DEVELOPMENT)


def test_licences_are_those_of_the_metadata_and_ask_for_nothing_that_binds() -> None:
    assert licences.FILE.read_text(encoding="utf-8") == licences.table(), "run `make licences`"
    for name in lock.names(lock.PRODUCTION):
        assert licences.allowed(licences.licence_of(name)), f"{name}: {licences.licence_of(name)}"


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("MIT", True),
        ("GPL-3.0-or-later", False),
        ("MIT OR GPL-3.0-or-later", True),
        ("MIT AND GPL-3.0-or-later", False),
        ("(MIT OR GPL-3.0-or-later) AND BSD-3-Clause", False),
        ("a sentence of a lawyer", False),
    ],
)
def test_which_licences_are_taken(expression: str, good: bool) -> None:
    """A choice inside of a conjunction is refused: a person looks at it."""
    assert licences.allowed(expression) is good


def test_the_bill_of_materials_is_that_of_the_lock() -> None:
    bill = json.loads(sbom.FILE.read_text(encoding="utf-8"))
    releases = lock.read_lock(lock.PRODUCTION)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["version"] == PROJECT["version"]
    components = {part["bom-ref"]: part for part in bill["components"]}
    assert components.keys() == {f"{release.name}@{release.version}" for release in releases}, "run `make sbom`"
    for part in components.values():
        assert part["licenses"] == [{"expression": licences.licence_of(part["name"])}]
        assert part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}"
    root = bill["metadata"]["component"]["bom-ref"]
    edges = {
        (entry["ref"].partition("@")[0], on) for entry in bill["dependencies"] for on in entry.get("dependsOn", ())
    }
    wanted = {
        ("simswitch" if who == lock.ROOT else who, f"{release.name}@{release.version}")
        for release in releases
        for who in release.via
    }
    assert root == f"simswitch@{PROJECT['version']}"
    assert edges == wanted
