"""Plug-in: encoders, translators and decoders on CTranslate2, in whole calls.

Its OpenMP threads spin for milliseconds between the parts of a call, by default. On a machine with
other work that made a decode of 20 tokens per second one of 1 token per second, so they hardly spin
here; the library reads the variable when it is loaded, which is after this module.
"""

import os

__version__ = "0.1.0"

os.environ.setdefault("GOMP_SPINCOUNT", "100")
