"""Routers by name, as a configuration or a keyword names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from busdoor.cluster.router import Router
from busdoor.cluster.routers import (
    LeastKV,
    LeastOutstanding,
    PowerOfTwo,
    PrefixAffinity,
    Random,
    RoundRobin,
    SessionAffinity,
    ShortestQueue,
)
from busdoor.cluster.session_hash import SessionHash
from busdoor.core.registry import Registry, checked, is_import_path

ROUTERS: Registry[type[Router]] = Registry(
    "a router",
    Router,
    {
        "round_robin": RoundRobin,
        "random": Random,
        "least_outstanding": LeastOutstanding,
        "shortest_queue": ShortestQueue,
        "power_of_two": PowerOfTwo,
        "least_kv": LeastKV,
        "session_affinity": SessionAffinity,
        "session_hash": SessionHash,
        "prefix_affinity": PrefixAffinity,
    },
)


def make_router(name: str, **fields: Any) -> Router:
    """Return a router.

    Parameters
    ----------
    name : str
        A name of `ROUTERS`, or "package.module:Name" of a `Router` of your own.
    **fields
        Its settings.

    Raises
    ------
    ValueError
        If the name is not known or a field is wrong, in one sentence.

    Examples
    --------
    >>> make_router("prefix_affinity", min_match=0.5).min_match
    0.5
    >>> make_router("round_robbin")
    Traceback (most recent call last):
    ValueError: 'round_robbin' is not a router; did you mean 'round_robin'? (known: ...)
    >>> make_router("prefix_affinity", min_macth=0.5)
    Traceback (most recent call last):
    ValueError: [router]: 'min_macth' is not a field of it; did you mean 'min_match'? (known: ...)
    """
    router = ROUTERS.find(name)
    if is_import_path(name):
        return _made(name, router, fields)
    known = getattr(router, "__dataclass_fields__", {})
    for field in fields.keys() - known:
        if not known:
            raise ValueError(f"[router]: {name!r} has no settings, so {field!r} is not one of them")
    return checked(router, fields, "[router]")


def _made(path: str, make: Callable[..., Router], fields: Mapping[str, Any]) -> Router:
    try:
        return make(**fields)
    except TypeError as error:
        raise ValueError(f"{path!r} cannot be made a router of: {error}") from error


def as_router(router: str | Mapping[str, Any] | Router) -> Router:
    """Return a router as it is, or make one of a name, or of a table with a `name` and fields.

    Examples
    --------
    >>> as_router({"name": "prefix_affinity", "max_lead": 8}).max_lead
    8
    """
    if isinstance(router, Router):
        return router
    if isinstance(router, str):
        return make_router(router)
    if "name" not in router:
        raise ValueError(
            f"router = {dict(router)!r} has no name; it must be one of {', '.join(ROUTERS)}"
        )
    return make_router(**router)


def router_name(router: str | Mapping[str, Any] | Router) -> str:
    """What a router is called in a result: its name, or where its class is.

    >>> router_name(make_router("random"))
    'random'
    """
    if isinstance(router, str):
        return router
    if not isinstance(router, Router):
        return str(router.get("name"))
    for name, kind in ROUTERS.items():
        if type(router) is kind:
            return name
    return f"{type(router).__module__}:{type(router).__qualname__}"
