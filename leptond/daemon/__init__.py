"""The composition root: what the daemon is told, and its life from start to stop."""

from __future__ import annotations

from leptond.daemon.life import Daemon
from leptond.daemon.options import DaemonOptions, daemon_options, fake_variant

__all__ = ["Daemon", "DaemonOptions", "daemon_options", "fake_variant"]
