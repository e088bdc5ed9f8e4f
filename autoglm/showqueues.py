"""How a person sees queues and tenants: what they get, what is due to them, what holds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autoglm.degrade import QueueStatus
from autoglm.paint import Paint, table
from autoglm.service import Hold, Service, TenantStatus
from autoglm.text import in_words

_SERVICE = ("WEIGHT", "DUE", "USED", "RUNNING", "WAITING", "DONE IN")


def queue_table(queues: Iterable[QueueStatus], paint: Paint) -> Iterable[str]:
    """Queues as aligned lines."""
    header = ("QUEUE", "STATE", *_SERVICE, "DEGRADE", "FROM", "HELD")
    return table(header, map(_queue_cells, queues), paint)


def tenant_table(tenants: Iterable[TenantStatus], paint: Paint) -> Iterable[str]:
    """Tenants as aligned lines."""
    rows = (
        (each.name, *_service_cells(each.service), _held(each.service.held)) for each in tenants
    )
    return table(("TENANT", *_SERVICE, "HELD"), rows, paint)


def queue_state(queue: QueueStatus) -> str:
    """`open`, or `paused` or `draining` and by whom."""
    by = f" by {queue.paused_by}" if queue.paused_by else ""
    if queue.draining:
        return f"draining{by}"
    return f"paused{by}" if queue.paused else "open"


def _queue_cells(queue: QueueStatus) -> Sequence[str]:
    service = queue.service
    served = ("",) * len(_SERVICE) if service is None else _service_cells(service)
    held = "" if service is None else _held(service.held)
    return (queue.name, queue_state(queue), *served, queue.degrade, queue.source, held)


def _service_cells(service: Service) -> Sequence[str]:
    cap, done = service.max_running, service.finishes_in_s
    return (
        f"{service.weight:g}",
        "" if service.due is None else f"{service.due:.0%}",
        f"{service.used:.0%}",
        str(service.running) if cap is None else f"{service.running}/{cap}",
        str(service.waiting),
        f"about {in_words(done)}" if done is not None else "",
    )


def _held(holds: Iterable[Hold]) -> str:
    return "; ".join(
        hold.text if hold.until_s is None else f"{hold.text}, for {in_words(hold.until_s)}"
        for hold in holds
    )
