"""Which model a `tei.v1` call means. That API knows one model; this daemon has many."""

from __future__ import annotations

from leptond.errors import InvalidRequest, ModelNotFound
from leptond.models import ModelRegistry
from leptond.server.calls import Call
from leptond.streaming import BlockingPool
from leptond.types import Task

__all__ = ["MODEL_KEY", "chosen_model"]

MODEL_KEY = "x-leptond-model"


async def chosen_model(
    models: ModelRegistry, pool: BlockingPool, call: Call, *ways: frozenset[Task]
) -> str:
    """The name in the call's metadata, else that of the only model that fits.

    Args:
        models: looked through where no name is given.
        pool: reads the store.
        call: its metadata are asked first.
        ways: sets of tasks; a model fits that answers all of one of them.

    Raises:
        ModelNotFound: no name is given, and no model fits.
        InvalidRequest: no name is given, and several do; the message names them.
    """
    named = call.metadata(MODEL_KEY)
    if named:
        return named
    fitting = await pool.run(models.fitting, *ways)
    if len(fitting) == 1:
        return fitting[0]
    wanted = " or ".join(" and ".join(sorted(way)) for way in ways)
    if not fitting:
        raise ModelNotFound(f"no model in the store can {wanted}", field=MODEL_KEY)
    names = ", ".join(fitting)
    msg = f"several models can {wanted}: set the metadata {MODEL_KEY} to one of {names}"
    raise InvalidRequest(msg, field=MODEL_KEY)
