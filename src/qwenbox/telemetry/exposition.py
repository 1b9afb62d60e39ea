"""This is where a snapshot becomes the text that Prometheus reads. Imported on demand: the library takes a tenth of a second."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from qwenbox.telemetry.names import COUNTER, FAMILIES, GAUGE, Family
from qwenbox.telemetry.snapshot import Snapshot


def page(snapshot: Snapshot, accept: str) -> tuple[str, bytes]:
    """Media type and text, in the format that the `Accept` header asks for."""
    encode, media_type = choose_encoder(accept)
    return media_type, encode(_Collected(snapshot))


class _Collected(Collector):
    """What the library's encoders walk over."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES.values():
            yield self._family(family)

    def _family(self, family: Family) -> Metric:
        samples = [one for one in self._snapshot.samples if one.name == family.name]
        if family.kind == COUNTER:
            counter = CounterMetricFamily(family.name, family.meaning, labels=family.labels)
            for one in samples:
                counter.add_metric(one.labels, one.value)
            return counter
        if family.kind == GAUGE:
            gauge = GaugeMetricFamily(family.name, family.meaning, labels=family.labels)
            for one in samples:
                gauge.add_metric(one.labels, one.value)
            return gauge
        histogram = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
        bounds = [*(str(bound) for bound in family.buckets_s), "+Inf"]
        for spread in self._snapshot.spreads:
            if spread.name == family.name:
                total, buckets = 0, list[tuple[str, float]]()
                for bound, count in zip(bounds, spread.counts, strict=True):
                    total += count
                    buckets.append((bound, total))
                histogram.add_metric(spread.labels, buckets, spread.sum_s)
        return histogram
