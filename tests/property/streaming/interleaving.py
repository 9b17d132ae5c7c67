"""Runs functions on threads of which one moves at a time, and cuts them where a test says.

Each thread can be stopped before every bytecode of the modules under test. A schedule is a list of
numbers: how many bytecodes run before the turn passes on. So hypothesis draws, repeats and shrinks
schedules like any other value.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

__all__ = ["Interleaving"]

PATIENCE_S = 10.0


class Deadlock(AssertionError):
    """Every thread that is left waits for another."""


class Interleaving:
    """Two or more functions, interleaved.

    Args:
        package: path part of the files whose bytecodes are cut points.
        cuts: how many of those run before the turn passes on, cut after cut; when the list is
            spent, a thread keeps its turn until it waits or ends.
    """

    def __init__(self, package: str, cuts: Sequence[int]) -> None:
        self._package = package
        self._cuts = list(cuts)
        self._left = self._cuts.pop(0) if self._cuts else -1
        self._turns: list[threading.Semaphore] = []
        self._alive: list[int] = []
        self._num_waits = 0
        self._error: BaseException | None = None

    def run(self, *functions: Callable[[], None]) -> None:
        """Run all to their ends; raises what the first of them raised."""
        self._alive = list(range(len(functions)))
        self._turns = [threading.Semaphore(0) for _ in functions]
        threads = [
            threading.Thread(target=self._thread, args=(index, function), daemon=True)
            for index, function in enumerate(functions)
        ]
        for thread in threads:
            thread.start()
        self._turns[0].release()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "the schedule does not end"
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Called by a function that looked and found nothing to do: let another move.

        Raises:
            Deadlock: every thread looked again and again, and none has moved.
        """
        self._num_waits += 1
        if self._num_waits > 3 * len(self._alive):
            raise Deadlock("every thread waits for another")
        self._pass_turn(int(threading.current_thread().name))

    def moved(self) -> None:
        """Called by a function that has done something others may wait for."""
        self._num_waits = 0

    def _thread(self, index: int, function: Callable[[], None]) -> None:
        threading.current_thread().name = str(index)
        self._turns[index].acquire()
        sys.settrace(self._trace)
        try:
            function()
        except BaseException as error:
            self._error = self._error or error
        finally:
            sys.settrace(None)
            self._num_waits = 0
            self._alive.remove(index)
            if self._alive:
                self._turns[self._alive[0]].release()

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if self._package not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._count()
        return self._trace

    def _count(self) -> None:
        if self._left < 0:
            return
        if self._left > 0:
            self._left -= 1
            return
        self._left = self._cuts.pop(0) if self._cuts else -1
        self._num_waits = 0  # whoever is cut was not waiting; and cuts come to an end
        self._pass_turn(int(threading.current_thread().name))

    def _pass_turn(self, index: int) -> None:
        following = [other for other in self._alive if other > index] or self._alive
        if following[0] != index:
            self._turns[following[0]].release()
            self._turns[index].acquire()
