"""The fake engine: a `Backend` with a latency model, for tests, clients and `--fake-model`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from leptond.backend.declarations import (
    Capabilities,
    MemoryEstimate,
    ModelSource,
    SessionKind,
    SessionOptions,
)
from leptond.backend.fake.batch_session import FakeBatchSession
from leptond.backend.fake.language import VOCAB_SIZE, FakeLanguage
from leptond.backend.fake.options import FakeOptions
from leptond.backend.fake.runtime import FakeRuntime, Sleep
from leptond.backend.fake.step_session import TOKEN_BYTES, FakeStepSession
from leptond.backend.spi import API_VERSION, Progress
from leptond.errors import (
    BackendUnavailable,
    InvalidRequest,
    InvariantViolation,
    ModelFailed,
    UnsupportedCapability,
)
from leptond.types import Task

__all__ = ["OPTIONS_FILE", "PRECISION", "FakeBackend", "FakeModel", "fake_source"]

OPTIONS_FILE = "fake.json"
"""The engine's one file: the options of a variant. It may be absent."""

PRECISION = "float32"
_TASKS = {
    SessionKind.STEP: frozenset({Task.GENERATE, Task.CHAT}),
    SessionKind.BATCH: frozenset({Task.EMBED, Task.TRANSLATE, Task.INFER}),
}
_NUM_LOAD_STEPS = 10


class FakeModel:
    """A loaded fake model.

    Args:
        options: how it behaves.
        sleep: how its sessions spend time; a test gives the advance of its simulated clock.
    """

    def __init__(self, options: FakeOptions | None = None, sleep: Sleep = time.sleep) -> None:
        self.options = options or FakeOptions()
        self._sleep = sleep
        self._language = FakeLanguage(self.options.seed, self.options.mean_sentences)
        self._runtimes: list[FakeRuntime] = []

    @property
    def capabilities(self) -> Capabilities:
        """What it does, by its options."""
        options = self.options
        is_step = options.kind is SessionKind.STEP
        return Capabilities(
            kind=options.kind,
            tasks=_TASKS[options.kind],
            devices=("cpu",),
            vocab_size=VOCAB_SIZE,
            max_slots=options.slots if is_step else 0,
            max_context_tokens=options.context,
            max_batch_rows=0 if is_step else options.slots,
            ride_along_tokens=options.ride_along_tokens,
            is_streaming=True,
            is_cancellable=not is_step,
        )

    def open_session(self, options: SessionOptions) -> FakeStepSession | FakeBatchSession:
        """A new executor.

        Raises:
            InvalidRequest: more slots or longer ones than the capabilities say.
        """
        mine = self.options
        for field, wanted, limit in (
            ("num_slots", options.num_slots, mine.slots),
            ("max_tokens", options.max_tokens, mine.context),
        ):
            if not 1 <= wanted <= limit:
                raise InvalidRequest(f"{field} is {wanted}, not from 1 to {limit}", field=field)
        runtime = FakeRuntime(mine, self._sleep)
        self._runtimes.append(runtime)
        if mine.kind is SessionKind.STEP:
            return FakeStepSession(self._language, runtime, options)
        return FakeBatchSession(
            self._language, runtime, max_rows=options.num_slots, max_tokens=options.max_tokens
        )

    def close(self) -> None:
        """Free the weights. A session that was not shut down before is an `InvariantViolation`."""
        if not all(runtime.is_shut_down for runtime in self._runtimes):
            raise InvariantViolation("a model was closed before its session")


class FakeBackend:
    """The engine itself."""

    name = "fake"
    api_version = API_VERSION
    importer = None

    def __init__(self, sleep: Sleep = time.sleep) -> None:
        self._sleep = sleep

    def describe(self) -> Mapping[str, str]:
        """For `leptond backends`."""
        return {"purpose": "deterministic pseudo-language for tests", "devices": "cpu"}

    def estimate_bytes(self, source: ModelSource, options: SessionOptions) -> MemoryEstimate:
        """What the model claims to weigh."""
        return MemoryEstimate(_options(source).weights_bytes, options.max_tokens * TOKEN_BYTES)

    def load(self, source: ModelSource, progress: Progress) -> FakeModel:
        """Take `load_s` seconds, in ten steps."""
        if source.device != "cpu":
            raise BackendUnavailable(f"the fake engine has no device {source.device}, only cpu")
        if source.precision != PRECISION:
            raise UnsupportedCapability(
                f"the fake engine computes in float32, not {source.precision}"
            )
        options = _options(source)
        for step in range(_NUM_LOAD_STEPS):
            progress("read weights", step / _NUM_LOAD_STEPS)
            if options.load_s:
                self._sleep(options.load_s / _NUM_LOAD_STEPS)
        if options.load_fails:
            raise ModelFailed("the fake model's load failed, as told")
        progress("ready", 1.0)
        return FakeModel(options, self._sleep)


def fake_source(options: FakeOptions | None = None, directory: Path = Path()) -> ModelSource:
    """The source of a fake model with these options; `directory` need not hold anything."""
    return ModelSource(directory, PRECISION, options=(options or FakeOptions()).to_mapping())


def _options(source: ModelSource) -> FakeOptions:
    """Those of `fake.json`, overridden by those of the source."""
    file = source.directory / OPTIONS_FILE
    try:
        stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return FakeOptions.from_mapping({**stored, **source.options})
    except (TypeError, ValueError) as error:
        raise ModelFailed(
            f"bad options of the fake model in {source.directory}: {error}"
        ) from error
