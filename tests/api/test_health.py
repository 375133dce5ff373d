from service import Service

from adserve.api.health import Part


async def test_the_process_is_alive(service: Service) -> None:
    reply = await service.call("GET", "/healthz", key=None)
    assert (reply.status, reply.body) == (200, {"status": "ok"})


async def test_readiness_names_each_part(service: Service) -> None:
    service.checks["database"] = lambda: Part(True)
    service.checks["rates"] = lambda: Part(True, "prior: no artifact")
    ready = await service.call("GET", "/readyz", key=None)
    assert (ready.status, ready.body["ready"]) == (200, True)
    assert ready.body["parts"]["rates"] == {"ok": True, "detail": "prior: no artifact", "needed": True}
    service.checks["database"] = lambda: Part(False, "cannot be reached", needed=False)
    without = await service.call("GET", "/readyz", key=None)
    assert (without.status, without.body["ready"], without.body["parts"]["database"]["ok"]) == (
        200,
        True,
        False,
    )
    service.checks["recorder"] = lambda: Part(False, "the queue is full")
    reply = await service.call("GET", "/readyz", key=None)
    assert (reply.status, reply.body["ready"], reply.body["parts"]["recorder"]["ok"]) == (503, False, False)


async def test_metrics_count_calls_by_operation_and_status(service: Service) -> None:
    await service.call("GET", "/v1/campaigns/7")
    metrics = (await service.call("GET", "/metrics", key=None)).raw.decode()
    assert 'adserve_http_requests_total{operation="getCampaign",status="404"}' in metrics
    assert "/v1/campaigns/7" not in metrics
