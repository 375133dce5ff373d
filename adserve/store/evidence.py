"""Gathers what a step of a ramp has seen, from sums that are kept as it is seen: it takes as long for a million viewers as for one."""

from collections.abc import Iterator, Sequence
from typing import Any

from adserve.domain.ramps import COMPARED, OF_EXPOSED, Arm, Evidence, Metric, Moments, Ramp
from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.time import DAY_MS, MINUTE_MS, from_ms, to_ms
from adserve.rollout.arms import exposed_share
from adserve.rollout.figures import quantile_ms
from adserve.store.desk import Connection
from adserve.store.statements import load

SQL = load("evidence")

WINDOW_MS = 5 * MINUTE_MS
"""How far operational figures look back, beside the present minute."""
PREDICTED_BACK_MS = DAY_MS
LEAST_SEEN = 100
"""Decisions, feeds or predicted clicks, without which a share or a quantile says nothing."""

_ASSIGNED = "assigned"
_NOTHING = Moments(0, 0, 0, 0, 0, 0)


async def gather(connection: Connection, ramp: Ramp, now_ms: int) -> Evidence:
    """Of the step that the ramp is at, since it was entered. Needs adserve_operator."""
    entered_at = from_ms(ramp.step_entered_at_ms)
    rows = await connection.fetch(SQL.moments, ramp.id, entered_at)
    moments = {(arm, metric): Moments(*of) for arm, metric, *of in rows}

    def of(arm: Arm, metric: str) -> Moments:
        return moments.get((arm, metric), _NOTHING)

    read_to = await connection.fetchval(SQL.read_to, ramp.id, entered_at)
    percents = await connection.fetchrow(SQL.percents, ramp.plan.surface)
    rollout = SurfaceRollout(*percents) if percents else SurfaceRollout()
    percent_bp = rollout.percent_bp_for(ramp.plan.countries[0] if ramp.plan.countries else None)
    return Evidence(
        exposed=of(Arm.EXPOSED, _ASSIGNED).viewers,
        control=of(Arm.CONTROL, _ASSIGNED).viewers,
        exposed_share=exposed_share(percent_bp, rollout.holdout_bp),
        compared={metric: (of(Arm.EXPOSED, metric), of(Arm.CONTROL, metric)) for metric in COMPARED},
        of_exposed={metric: of(Arm.EXPOSED, metric) for metric in OF_EXPOSED},
        operational=dict(
            [*await _window(connection, ramp, now_ms), *await _calibration(connection, ramp, now_ms)]
        ),
        events_behind_ms=now_ms - to_ms(read_to or entered_at),
    )


async def _window(connection: Connection, ramp: Ramp, now_ms: int) -> list[tuple[Metric, float]]:
    since_ms = max(now_ms - WINDOW_MS, ramp.step_entered_at_ms)
    minutes = await connection.fetch(SQL.window, ramp.id, from_ms(since_ms - since_ms % MINUTE_MS))
    return list(_figures(minutes))


def _figures(minutes: Sequence[Any]) -> Iterator[tuple[Metric, float]]:
    def total(name: str) -> float:
        return float(sum(row[name] for row in minutes))

    looked, decisions, paced = total("looked"), total("decisions"), total("paced")
    if looked >= LEAST_SEEN:
        yield Metric.NO_FILL, total("unfilled") / looked
    if decisions >= LEAST_SEEN:
        yield Metric.ERRORS, total("errors") / decisions
    if paced:
        yield Metric.SPEND_PACE, total("off_pace") / paced
    for metric, name in ((Metric.DECISION_P99_MS, "decision_ms"), (Metric.FEED_LATENCY_P99_MS, "feed_ms")):
        buckets = [sum(counts) for counts in zip(*[row[name] for row in minutes], strict=True)]
        p99_ms = quantile_ms(buckets, 0.99) if sum(buckets) >= LEAST_SEEN else None
        if p99_ms is not None:
            yield metric, p99_ms


async def _calibration(connection: Connection, ramp: Ramp, now_ms: int) -> list[tuple[Metric, float]]:
    """Clicks of the step for each that its impressions let expect, at the mean rate that was predicted of what was placed."""
    since_ms = max(now_ms - PREDICTED_BACK_MS, ramp.step_entered_at_ms)
    known = await connection.fetchrow(
        SQL.clicks,
        ramp.id,
        from_ms(ramp.step_entered_at_ms),
        from_ms(since_ms - since_ms % MINUTE_MS),
    )
    impressions, clicks, click_rate = known or (0, 0, None)
    expected = impressions * (click_rate or 0.0)
    return [(Metric.CALIBRATION, clicks / expected)] if expected >= LEAST_SEEN else []
