"""This process's figures for Prometheus, and those of several processes put together."""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SUMMED = ("counter", "histogram", "summary")


class Sample(Struct, frozen=True, array_like=True):
    name: str
    labels: dict[str, str]
    value: float


class Family(Struct, frozen=True, array_like=True):
    """A metric: what Prometheus calls its type is "counter", "gauge", …"""

    name: str
    documentation: str
    type: str
    samples: Sequence[Sample]

    @property
    def summed(self) -> bool:
        """Whether the figures of several processes add up, and outlive their process."""
        return self.type in _SUMMED


def own(worker: str, registry: CollectorRegistry = REGISTRY) -> list[Family]:
    """This process's. A gauge says whose it is; when a counter was made says nothing about several."""
    return [
        Family(metric.name, metric.documentation, metric.type, list(_samples(metric, worker)))
        for metric in registry.collect()
    ]


def added(reports: Iterable[Sequence[Family]]) -> list[Family]:
    """Figures of the same name and labels are summed."""
    families: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in (family for report in reports for family in report):
        families.setdefault(family.name, family)
        sums = values.setdefault(family.name, {})
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            sums[key] = sums.get(key, 0.0) + sample.value
    return [
        Family(
            name,
            family.documentation,
            family.type,
            [Sample(of, dict(labels), value) for (of, labels), value in values[name].items()],
        )
        for name, family in families.items()
    ]


def exposition(families: Sequence[Family]) -> bytes:
    """In Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Known(families))
    return generate_latest(registry)


class _Known(Collector):
    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.documentation, family.type)
            for sample in family.samples:
                metric.add_sample(sample.name, sample.labels, sample.value)
            yield metric


def _samples(metric: Metric, worker: str) -> Iterator[Sample]:
    more = {} if metric.type in _SUMMED else {"worker": worker}
    for sample in metric.samples:
        if not sample.name.endswith("_created"):
            yield Sample(sample.name, {**sample.labels, **more}, sample.value)
