"""One daemon per address: a lock file that names its holder.

`<runtime>/<address>.lock` is locked with flock(2) for as long as the daemon serves the address, and
holds its pid. The kernel drops the lock with the process, however that ends, so a file that was
left behind is no obstacle.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["AddressInUse", "AddressLock"]


class AddressInUse(OSError):
    """Another daemon serves the address.

    Attributes:
        pid: its process; None in the moment in which it has not said so yet.
    """

    def __init__(self, address: str, pid: int | None, path: Path) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(f"{address} is already served by {who} (lock file {path})")
        self.address = address
        self.pid = pid


class AddressLock:
    """A held lock; `release` it, or use it as a context manager.

    I1  The file that we hold the lock of is the one under the public name: whoever releases removes
        the name first, and whoever acquires looks again after locking.
    """

    def __init__(self, address: str, path: Path, descriptor: int) -> None:
        self.address = address
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, runtime_directory: Path, address: str) -> AddressLock:
        """Lock `address`, written as it was bound (`127.0.0.1:8600`, `unix:/run/x.sock`).

        Raises:
            AddressInUse: another process, or another lock of this one, holds it.
            OSError: the directory cannot be written to.
        """
        path = lock_path(runtime_directory, address)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                if _lock(descriptor, address, path):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
                    return cls(address, path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def release(self) -> None:
        """Give the address up and remove the file. Twice is once."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        self.path.unlink(missing_ok=True)
        os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def lock_path(runtime_directory: Path, address: str) -> Path:
    """Return the lock file of an address; slashes are written as in a URL."""
    name = address.replace("%", "%25").replace("/", "%2F")
    return runtime_directory / f"{name}.lock"


def _lock(descriptor: int, address: str, path: Path) -> bool:
    """Lock an open lock file; False when its name went to another file meanwhile (I1)."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).strip()
        raise AddressInUse(address, int(holder) if holder.isdigit() else None, path) from None
    try:
        current = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (current.st_dev, current.st_ino) == (held.st_dev, held.st_ino)
