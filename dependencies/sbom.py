"""The bill of materials of a deployment, as CycloneDX 1.6 in JSON: ``python -m dependencies.sbom`` writes sbom.json
(`make sbom`, which installs the library that it needs).

Everything follows from production.txt, licences of installed packages and the version of simswitch: no instant, no
random number, so that the same lock gives the same file. What a release's files hash to stands in the lock.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import simswitch

from dependencies.licences import licence_of
from dependencies.lock import FOLDER, PRODUCTION, ROOT, read_lock

FILE = FOLDER / "sbom.json"


def bill() -> str:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from packageurl import PackageURL

    def component(name: str, version: str, **more: Any) -> Any:
        reference = f"{name}@{version}"
        return Component(name=name, version=version, bom_ref=reference, **more)

    lock = PRODUCTION.read_bytes()
    digest = hashlib.sha256(lock + simswitch.__version__.encode()).digest()
    bom = Bom(serial_number=uuid.UUID(bytes=digest[:16], version=5))
    bom.metadata.timestamp = None
    root = component("simswitch", simswitch.__version__, type=ComponentType.APPLICATION)
    bom.metadata.component = root
    made: dict[str, list[Any]] = {ROOT: [root]}
    licences = LicenseFactory()
    releases = read_lock(PRODUCTION)
    for release in releases:
        library = component(
            release.name,
            release.version,
            type=ComponentType.LIBRARY,
            purl=PackageURL("pypi", name=release.name, version=release.version),
            licenses=[licences.make_with_expression(licence_of(release.name))],
            properties=[Property(name="simswitch:marker", value=release.marker)],
        )
        made.setdefault(release.name, []).append(library)
        bom.components.add(library)
    for release in releases:
        wanted = [library for library in made[release.name] if library.version == release.version]
        for who in release.via:
            for asking in made[who]:
                bom.register_dependency(asking, wanted)
    for library in bom.components:
        bom.register_dependency(library)
    text: str = JsonV1Dot6(bom).output_as_string(indent=1)
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong:
        raise ValueError(f"the bill of materials is not what CycloneDX says: {wrong}")
    return text + "\n"


if __name__ == "__main__":
    FILE.write_text(bill(), encoding="utf-8")
