"""The configuration: defaults < file < `LEPTOND_*` < flags, each value with its origin."""

from leptond.config.address import Address
from leptond.config.errors import ConfigError, Problem
from leptond.config.layers import settings_of_flags
from leptond.config.loading import LoadedConfig, default_stores, load_config
from leptond.config.origin import Origin, OriginKind
from leptond.config.schema import Config, ModelSettings
from leptond.config.show import iter_rows, show_config

__all__ = [
    "Address",
    "Config",
    "ConfigError",
    "LoadedConfig",
    "ModelSettings",
    "Origin",
    "OriginKind",
    "Problem",
    "default_stores",
    "iter_rows",
    "load_config",
    "settings_of_flags",
    "show_config",
]
