"""What the daemon knows of the machine and of who started it: systemd, signals, locks, cores."""

from leptond.host.environment import HostEnvironment, UnsafeDirectory
from leptond.host.locks import AddressInUse, AddressLock
from leptond.host.machine import available_cores, available_memory_bytes
from leptond.host.notify import Notifier
from leptond.host.signals import StopSignals
from leptond.host.watchdog import keep_watchdog

__all__ = [
    "AddressInUse",
    "AddressLock",
    "HostEnvironment",
    "Notifier",
    "StopSignals",
    "UnsafeDirectory",
    "available_cores",
    "available_memory_bytes",
    "keep_watchdog",
]
