"""Figures for Prometheus: what a process tells of itself when it is asked over HTTP.

    Prometheus ──GET /metrics──▶ a thread ──collect()──▶ what there is at this instant ──▶ text

Nothing is gathered for it meanwhile: figures are taken from where they stand anyway. Nobody listens unless the settings
say where. That has to be a loopback address, unless they say in so many words that it need not be: nobody is asked who
he is. So no figure names a SIM, a person, a terminal or an access server, and how many figures there are is bounded by
what the process is and by its markets, not by its pool.

Needs ``prometheus-client``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any

from simswitch.tally import Tally

PREFIX = "simswitch_"

Collect = Callable[[], Iterable[Any]]
"""Gives metric families of ``prometheus_client``."""


class MetricsRefused(ValueError):
    """The figures can't be shown there, or not at all."""


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Host and port where each process tells of itself; None: it doesn't."""

    service: tuple[str, int] | None = None
    follower: tuple[str, int] | None = None
    learner: tuple[str, int] | None = None
    beyond_loopback: bool = False
    """The addresses may be any: said in so many words."""

    def check(self) -> None:
        """Raises ``MetricsRefused``."""
        for listen in (self.service, self.follower, self.learner):
            if listen is not None:
                check_listen(listen[0], self.beyond_loopback)

    def words(self, listen: tuple[str, int] | None) -> list[str]:
        """For the command line of a process beside the service."""
        if listen is None:
            return []
        return ["--metrics", shown(*listen), *(["--metrics-beyond-loopback"] if self.beyond_loopback else [])]


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:9467`` or ``[::1]:9467``. Raises ``MetricsRefused``."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise MetricsRefused(f"{text!r} is no address: host and port belong here, such as 127.0.0.1:9467")
    return host.removeprefix("[").removesuffix("]"), int(port)


def check_listen(host: str, beyond_loopback: bool) -> None:
    """Raises ``MetricsRefused`` when figures would be shown to whom nobody meant to show them, or nothing can make
    them."""
    if find_spec("prometheus_client") is None:
        raise MetricsRefused(
            "figures for Prometheus need the package prometheus-client, which is not installed: "
            "pip install 'simswitch[metrics]'"
        )
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not beyond_loopback:
        raise MetricsRefused(
            f"{host!r} is not a loopback address, and whoever reaches it could read the figures: use 127.0.0.1 or ::1, "
            "or set beyond_loopback = true in the section metrics of the settings"
        )


def listening(
    text: str, beyond_loopback: bool, collect: Collect, say: Callable[[str], object]
) -> AbstractContextManager[object]:
    """Tells of a process beside the service as long as it is entered. Raises ``MetricsRefused``. When the port can't be
    had, that is said and the process goes on: it has better to do than to be looked at."""
    host, port = parse_listen(text)
    check_listen(host, beyond_loopback)
    from simswitch.metrics_listener import Listener

    try:
        return closing(Listener(host, port, collect))
    except OSError as error:
        say(f"no figures are told at {text}: {error}")
        return nullcontext()


def counter(name: str, text: str, value: float) -> Any:
    """A figure that only rises, from the start of the process or of the state it is of; ``name`` without ``_total``."""
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(PREFIX + name, text, value=value)


def gauge(name: str, text: str, value: float) -> Any:
    """A figure that rises and falls."""
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(PREFIX + name, text, value=value)


def counters(name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]) -> Any:
    """The same, one for each combination of labels."""
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family


def gauges(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(PREFIX + name, text, labels=(label,))
    for of, value in values:
        family.add_metric((of,), value)
    return family


def histogram(
    name: str,
    text: str,
    values: Iterable[tuple[tuple[str, ...], Tally]],
    labels: tuple[str, ...] = (),
    unit: float = 1.0,
) -> Any:
    """Of tallies, each with its labels. ``unit``: what one of a tally's figures is in the unit that the name says."""
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(PREFIX + name, text, labels=labels)
    for of, tally in values:
        # Copied once, so that the buckets agree with each other while somebody counts on.
        counts, reached = list(tally.counts), 0
        buckets = []
        for bound, count in zip([*(f"{bound * unit:g}" for bound in tally.bounds), "+Inf"], counts, strict=True):
            reached += count
            buckets.append((bound, reached))
        family.add_metric(of, buckets, tally.total * unit)
    return family


def shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
