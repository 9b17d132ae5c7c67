"""What an import tells of a variant, for `variant.toml` and for the one who imported it."""

from __future__ import annotations

from leptond_ctranslate2.description import EngineDescription, ModelKind
from leptond_ctranslate2.processor import FULL_INT8_LIMIT

__all__ = ["facts_of"]

_INT8_DECODER = (
    "An int8 decoder of this engine loses more than 1 % of perplexity: its activations share one "
    "scale per row. Serve float32, or int8 of the onnxruntime backend, by default."
)


def facts_of(description: EngineDescription) -> dict[str, object]:
    """Return the facts.

    `int8_limit` is the largest magnitude of a weight: 127 on processors with VNNI, for which the
    variant then is made, 64 on others. `advice` is there when the variant is no good default.
    """
    facts: dict[str, object] = {
        "architecture": description.family,
        "kind": str(description.kind),
        "precision": str(description.precision),
        "max_context_tokens": description.max_positions,
        "cpu_model": description.cpu_model,
        "instruction_sets": list(description.instruction_sets),
    }
    if description.int8_limit:
        facts["int8_limit"] = description.int8_limit
        facts["needs_vnni"] = description.int8_limit == FULL_INT8_LIMIT
        if description.kind is ModelKind.GENERATOR:
            facts["advice"] = _INT8_DECODER
    return facts
