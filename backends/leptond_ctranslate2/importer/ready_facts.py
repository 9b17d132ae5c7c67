"""What a finished file tells of its model: kind, precision, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leptond.errors import InvalidRequest, UnsupportedCapability
from leptond_ctranslate2.description import EngineDescription, ModelKind, ModelSizes
from leptond_ctranslate2.importer.model_file import ModelFile, Variable
from leptond_ctranslate2.importer.ready_text import ReadyTokenizer
from leptond_ctranslate2.precision import Precision

__all__ = ["describe_model"]

_KINDS = {
    "TransformerEncoderSpec": ModelKind.ENCODER,
    "TransformerSpec": ModelKind.TRANSLATOR,
    "TransformerDecoderSpec": ModelKind.GENERATOR,
}
_FLOATS = {"float32": "", "float16": "_float16", "bfloat16": "_bfloat16"}
_DEFAULT_TOKENS = {ModelKind.GENERATOR: 2048}
_DEFAULT_INPUT_TOKENS = 512
_RELATIVE = "relative_attention_bias"


def describe_model(
    model: ModelFile, config: Mapping[str, Any], words: ReadyTokenizer
) -> EngineDescription:
    """Return the description of a file as the engine's converters write it.

    Raises:
        InvalidRequest: a variable that every such model has is missing.
        UnsupportedCapability: a kind of model or a type that is not served.
    """
    kind = _KINDS.get(model.spec_name)
    if kind is None:
        raise UnsupportedCapability(
            f"a {model.spec_name} of CTranslate2 is not served; {', '.join(sorted(_KINDS))} are"
        )
    side = "encoder" if kind is ModelKind.ENCODER else "decoder"
    embeddings = f"{side}/embeddings" + ("_0" if kind is ModelKind.ENCODER else "")
    vocab_size, hidden_size = _shape(model, f"{embeddings}/weight")
    types = model.variables.get("encoder/embeddings_1/weight")
    table = model.variables.get(f"{side}/position_encodings/encodings")
    rows = table.shape[0] if table is not None else None
    limit = words.max_tokens or _DEFAULT_TOKENS.get(kind, rows or _DEFAULT_INPUT_TOKENS)
    length = min(limit, rows or limit)
    stops = () if kind is ModelKind.ENCODER else (words.require(config, "eos_token"),)
    return EngineDescription(
        kind,
        _precision(model),
        model.spec_name,
        vocab_size,
        length,
        _sizes(model, side, hidden_size, has_cache=kind is not ModelKind.ENCODER),
        max_answer_tokens=length if kind is ModelKind.TRANSLATOR else 0,
        num_token_types=types.shape[0] if types is not None else 0,
        stop_token_ids=stops,
    )


def _precision(model: ModelFile) -> Precision:
    types = {v.type_name for v in model.variables.values() if v.shape}
    floats = types & _FLOATS.keys()
    unknown = types - {"int8", *_FLOATS} or any(n.endswith("_zero") for n in model.variables)
    if unknown:
        raise UnsupportedCapability(
            f"weights of {', '.join(sorted(types))} are not served: convert the model again with "
            f"--quantization {' or '.join(Precision)}"
        )
    if "int8" not in types:
        (float_type,) = floats or {"float32"}
        return Precision(float_type)
    # Scales are float32 always: another type beside it is that of the rest.
    other = floats - {"float32"} or {"float32"}
    return Precision(f"int8{_FLOATS[other.pop()]}")


def _sizes(model: ModelFile, side: str, hidden_size: int, *, has_cache: bool) -> ModelSizes:
    layer = f"{side}/layer_0"
    num_layers = 0
    while f"{side}/layer_{num_layers}/ffn/linear_0/weight" in model.variables:
        num_layers += 1
    if not num_layers:
        raise InvalidRequest(f"model.bin has no {layer}")
    (query_size,) = _shape(model, f"{layer}/self_attention/linear_1/weight")[1:]
    all_size = _shape(model, f"{layer}/self_attention/linear_0/weight")[0]
    return ModelSizes(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=int(model.values(f"{side}/num_heads")),
        kv_size=(all_size - query_size) // 2 if has_cache else 0,
        ffn_size=_shape(model, f"{layer}/ffn/linear_0/weight")[0],
    )


def _shape(model: ModelFile, name: str) -> tuple[int, ...]:
    variable: Variable | None = model.variables.get(name)
    if variable is None:
        raise InvalidRequest(f"model.bin has no {name}")
    return variable.shape
