"""Certificates made at test time, by authorities that exist for one test only."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """A CA in a folder: ``ca.pem``, and NAME.pem and NAME.key of those that it signs for."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._above = b""
        """What stands between it and the root, in each file."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ca {folder.name}")])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        made = self._builder(self._name, self._key).add_extension(basic, critical=True)
        self.pem = folder / "ca.pem"
        self.pem.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, begins_hours: float = -1, ends_hours: float = 24
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(hours=begins_hours))
            .not_valid_after(now + datetime.timedelta(hours=ends_hours))
        )

    def pretender(self, name: str) -> Authority:
        """One that signs with what this one signed for somebody who is no authority."""
        certificate, key = self.sign(name, file="pretender")
        made = Authority(self.folder / "pretender")
        secret = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(secret, ec.EllipticCurvePrivateKey)
        made._key, made._name = secret, x509.load_pem_x509_certificate(certificate.read_bytes()).subject
        made._above = certificate.read_bytes()
        return made

    def sign(
        self,
        name: str,
        *,
        uri: str = "",
        host: bool = False,
        file: str = "",
        usage: x509.ObjectIdentifier | None = None,
        **hours: float,
    ) -> tuple[Path, Path]:
        """The files of a certificate and its key. ``begins_hours``, ``ends_hours``: from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, **hours)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)] if uri else []
        if host:
            names += [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate, secret = self.folder / f"{file or name}.pem", self.folder / f"{file or name}.key"
        secret.touch(mode=0o600)
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        signed = builder.sign(self._key, hashes.SHA256())
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + self._above)
        return certificate, secret
