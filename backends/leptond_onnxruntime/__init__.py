"""Plug-in: decoders and tensor models on ONNX Runtime, with continuous batching of our own.

Builds of ONNX Runtime from 1.32 on report to their maker over the network, and keep a database in
the user's home for it, unless a variable says no before the library is loaded (`Privacy.md` of its
package). A daemon sends nothing that its operator did not ask for, so it is said here, where every
import of the plug-in passes; who sets the variable decides.
"""

import os

__version__ = "0.1.0"

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
