"""A scheduler without its thread: the test makes every step and turns the clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from leptond.backend import SessionOptions, StepResult, StepRow, StepSession
from leptond.backend.fake import FakeModel, FakeOptions
from leptond.errors import InvariantViolation, LeptondError
from leptond.scheduler import ComputeBudget, SchedulerOptions
from leptond.scheduler.admission import Admission
from leptond.scheduler.estimate import PaceEstimate
from leptond.scheduler.limits import ModelLimits
from leptond.scheduler.worker import StepWorker
from leptond.text import Tokenizer
from leptond.types import (
    GenerationRequest,
    GenerationSummary,
    SamplingParams,
    StopConditions,
    TokenChunk,
)

GREEDY = SamplingParams(temperature=0.0)

ItemT = TypeVar("ItemT")
FinalT = TypeVar("FinalT")


class SimulatedClock:
    """Time that passes only when it is told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class RecordedAnswer(Generic[ItemT, FinalT]):
    """Keeps what it is given, and when; ended twice, it complains."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self.wake: Callable[[], None] = lambda: None
        self.items: list[ItemT] = []
        self.times: list[float] = []
        self.final: FinalT | None = None
        self.error: LeptondError | None = None
        self.is_cancelled = False
        self.has_room = True

    def attach(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    def push(self, item: ItemT) -> None:
        assert not self.is_ended
        self.items.append(item)
        self.times.append(self._clock.now)

    def finish(self, final: FinalT) -> None:
        self._require_open()
        self.final = final

    def fail(self, error: LeptondError) -> None:
        self._require_open()
        self.error = error

    def _require_open(self) -> None:
        if self.is_ended:
            raise InvariantViolation("a sink was ended twice")

    @property
    def is_ended(self) -> bool:
        return self.final is not None or self.error is not None

    @property
    def summary(self) -> FinalT:
        assert self.final is not None, self.error
        return self.final

    @property
    def failure(self) -> LeptondError:
        assert self.error is not None
        return self.error

    def cancel(self) -> None:
        self.is_cancelled = True
        self.wake()


class RecordingSink(RecordedAnswer[TokenChunk, GenerationSummary]):
    """The same for a text, with what its tests ask of it."""

    @property
    def chunks(self) -> list[TokenChunk]:
        return self.items

    @property
    def token_ids(self) -> list[int]:
        return [token_id for chunk in self.items for token_id in chunk.token_ids]

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.items)

    def lose_room(self) -> None:
        self.has_room = False

    def make_room(self) -> None:
        self.has_room = True
        self.wake()


class WatchedSession:
    """Passes every call on, and keeps what the engine was asked for in each step."""

    def __init__(self, session: StepSession) -> None:
        self._session = session
        self.steps: list[list[StepRow]] = []
        self.num_open = 0

    def open(self) -> int:
        slot = self._session.open()
        self.num_open += 1
        return slot

    def fork(self, source: int, length: int) -> int:
        return self._session.fork(source, length)

    def truncate(self, slot: int, length: int) -> None:
        self._session.truncate(slot, length)

    def close(self, slot: int) -> None:
        self._session.close(slot)
        self.num_open -= 1

    def length(self, slot: int) -> int:
        return self._session.length(slot)

    def step(self, rows: Sequence[StepRow]) -> StepResult:
        self.steps.append(list(rows))
        return self._session.step(rows)

    def resident_bytes(self) -> int:
        return self._session.resident_bytes()

    def shutdown(self) -> None:
        self._session.shutdown()

    @property
    def lengths(self) -> list[list[int]]:
        """New tokens of each row of each step."""
        return [[len(row.token_ids) for row in rows] for rows in self.steps]


class Rig:
    """One model's admission and worker on the fake engine."""

    def __init__(
        self,
        fake: FakeOptions | None = None,
        options: SchedulerOptions | None = None,
        *,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.clock = SimulatedClock()
        self.fake = fake or FakeOptions(slots=4, context=256, mean_sentences=0)
        self.options = options or SchedulerOptions()
        self.model = FakeModel(self.fake, self.clock.sleep)
        self.num_flushes = 0
        session_options = SessionOptions(self.fake.slots, self.fake.context)
        session = self.model.open_session(session_options)
        assert isinstance(session, StepSession)
        self.session = WatchedSession(session)
        self.limits = ModelLimits.resolve(
            "fake",
            self.model.capabilities,
            session_options,
            self.options,
            has_tokenizer=tokenizer is not None,
        )
        self.pace = PaceEstimate()
        self.admission = Admission(self.limits, self.options, clock=self.clock, pace=self.pace)
        self.worker = StepWorker(
            self.session,
            self.admission,
            limits=self.limits,
            tokenizer=tokenizer,
            compute=ComputeBudget(2, clock=self.clock),
            clock=self.clock,
            pace=self.pace,
            flush=self._flush,
        )
        self._serials = itertools.count()

    def _flush(self) -> None:
        self.num_flushes += 1

    def request(
        self,
        prompt: int | Sequence[int] = 4,
        max_tokens: int = 4,
        *,
        deadline_in: float | None = None,
        priority: int = 0,
        tenant: str = "",
        sampling: SamplingParams = GREEDY,
        stop: StopConditions | None = None,
        num_top_logprobs: int | None = None,
    ) -> GenerationRequest:
        """A request; a number for the prompt makes one of that length, each different."""
        serial = next(self._serials)
        if isinstance(prompt, int):
            prompt = [(serial * 31 + i) % 250 for i in range(prompt)]
        return GenerationRequest(
            id=f"r{serial}",
            prompt_ids=tuple(prompt),
            sampling=sampling,
            stop=stop or StopConditions(max_tokens),
            deadline=None if deadline_in is None else self.clock.now + deadline_in,
            priority=priority,
            tenant=tenant,
            num_top_logprobs=num_top_logprobs,
        )

    def submit(self, request: GenerationRequest) -> RecordingSink:
        sink = RecordingSink(self.clock)
        self.admission.submit(request, sink)
        return sink

    def advance(self) -> bool:
        has_run = self.worker.advance(has_news=self.admission.begin_round())
        self.worker.check_integrity()
        return has_run

    def run(self, max_steps: int = 10_000) -> int:
        """Make steps until there is nothing to run; how many."""
        for step in range(max_steps):
            if not self.advance():
                return step
        raise AssertionError(f"still running after {max_steps} steps")
