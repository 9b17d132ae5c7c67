"""Writes `docs/configuration.md` out of the schema: `python -m leptond.config.reference`."""

from __future__ import annotations

import json
import sys
from typing import Final

from pydantic.fields import FieldInfo

from leptond.config.layers import extra, is_settable, sections, variable_name
from leptond.config.ranges import describe_range
from leptond.config.schema import ModelSettings

__all__ = ["render_reference"]

_HEAD: Final = """\
# Configuration

<!-- Made by `python -m leptond.config.reference`; a test compares. Change the schema, not this. -->

`leptond serve` needs no configuration. What is configured comes from, later ones winning:

1. the defaults below;
2. a TOML file: `--config FILE`, else `$LEPTOND_CONFIG`;
3. environment variables `LEPTOND_<TABLE>_<KEY>`; lists are written with commas, directories with
   colons. `LEPTOND_STORE` is short for `LEPTOND_MODELS_STORES`;
4. flags of the command line.

A wrong value, an unknown key and an unknown `LEPTOND_*` variable stop the start; the message names
the place, the key, the value and what would be right. `leptond check-config` does only that check;
`leptond config show` prints every value in effect with its origin, secrets masked, as TOML.

`systemd/leptond.toml` is a complete file to start from.
"""

# Not read from the engines: this package knows none of them. A test compares.
_ENGINES: Final = """\
| table | key | default | what it is |
|---|---|---|---|
| `[backend.onnxruntime]` | `num_threads` | `0` | threads of one step, from 0 to 1024 |
| `[backend.onnxruntime]` | `spin_us` | `20` | how long a thread that waits within a run spins \
before it sleeps, in microseconds from 0, not at all, to 1000000 |
| `[backend.ctranslate2]` | `num_threads` | `0` | threads of one call, from 0 to 1024 |

`num_threads = 0` is one thread for each physical core that the daemon may use, and no more than
`num_cores` of `[models]` where that is set.
"""


def render_reference() -> str:
    """Return the whole page."""
    parts = [_HEAD]
    for section, model in sections():
        parts.append(f"## `[{section}]`\n\n{model.__doc__}\n")
        parts += [_render(key, info, section) for key, info in model.model_fields.items()]
    parts.append(
        '## `[models.per_model."name"]`\n\n'
        "What one model has of its own. The table of `name:variant` wins over that of `name`, and "
        "both over `[models]`.\n"
    )
    parts += [_render(key, info, "") for key, info in ModelSettings.model_fields.items()]
    parts.append(
        "## `[backend.<name>]`\n\n"
        "One table per engine. The engine checks its own keys when it loads a model; those of the "
        "engines that come with leptond are these. Other engines document their own.\n\n"
        f"{_ENGINES}"
    )
    return "\n".join(parts)


def _render(key: str, info: FieldInfo, section: str) -> str:
    facts = [describe_range(info)]
    if info.default is not None:
        facts.append(f"default `{json.dumps(info.default)}`")
    if extra(info)["flag"]:
        facts.append(f"flag `{extra(info)['flag']}`")
    if section and is_settable(info):
        facts.append(f"variable `{variable_name(section, key)}`")
    return f"### `{key}`\n\n{info.description}\n\n{'; '.join(facts)}.\n"


if __name__ == "__main__":
    sys.stdout.write(render_reference())
