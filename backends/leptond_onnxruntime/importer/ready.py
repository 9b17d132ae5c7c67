"""Takes over an encoder that is an ONNX file already, as optimum and sentence-transformers export.

The file says nothing of a tokenizer, and hardly anything of sizes: the tokenizer is given, and
trial runs of what was copied find the rest.
"""

from __future__ import annotations

from pathlib import Path

from leptond.backend.heads import POOLINGS, Head
from leptond.backend.processor import cpu_model, instruction_sets
from leptond.checkpoint import EncoderDefaults, TextAssets
from leptond.checkpoint.hf_tokenizer import HfTokenizer, max_input_tokens, truncation_side
from leptond.checkpoint.json_facts import JsonFacts
from leptond.errors import InvalidRequest
from leptond.types import Task
from leptond_onnxruntime.importer import encoder_io as io
from leptond_onnxruntime.importer.onnx_file import POOLED_OUTPUTS, OnnxFile
from leptond_onnxruntime.importer.trial import Trial

__all__ = ["import_file"]

_FAMILY = "onnx"
# Guesses for what a file does not say, for estimates of memory: the smallest usual heads, and the
# usual width of a feed-forward block.
_MIN_HEAD_DIM = 32
_FFN_FACTOR = 4


def import_file(
    source: Path, tokenizer: Path, directory: Path, *, pooling: str | None = None
) -> tuple[io.EncoderSpec, TextAssets]:
    """Copy the ONNX file `source` into the empty `directory`, checked against its tokenizer.

    Args:
        source: weights that it keeps outside lie in its own folder.
        tokenizer: the model's tokenizer.json; a `tokenizer_config.json` beside it is read.
        directory: of the variant.
        pooling: one of `POOLINGS`, of its hidden states; None takes the embeddings that it gives,
            and where it gives none, `mean`.

    Raises:
        InvalidRequest: it is no encoder's ONNX file, it does not run, or the tokenizer is not the
            model's.
        UnsupportedCapability: operators or types that are not served.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise InvalidRequest(
            f"pooling {pooling!r} is not known: {', '.join(POOLINGS)}", field="--pooling"
        )
    file = OnnxFile(source)
    words = _read_tokenizer(tokenizer)
    config = JsonFacts.read_optional(tokenizer.with_name("tokenizer_config.json"))
    vocab_size = 1 + max(words.engine.get_vocab(with_added_tokens=True).values(), default=0)
    output = _choose_output(file, pooling)
    is_pooled = file.is_pooled(output)
    file.copy(directory, io.ENCODER_FILE)
    # The head of pooled embeddings takes them as rows of one token.
    Head(Task.EMBED, [{"op": "pool", "kind": pooling or "mean"}], {}).save(directory)
    trial = Trial(directory / io.ENCODER_FILE, source, output, takes_types=file.takes_types)
    hidden_size = trial.hidden_size(is_pooled=is_pooled)
    trial.check_vocabulary(vocab_size, tokenizer)
    max_tokens = trial.max_tokens(max_input_tokens(config))
    spec = io.EncoderSpec(
        precision=file.precision,
        family=_FAMILY,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_heads=max(1, hidden_size // _MIN_HEAD_DIM),
        ffn_size=_FFN_FACTOR * hidden_size,
        max_positions=max_tokens,
        num_token_types=trial.num_token_types(),
        output=output,
        is_pooled=is_pooled,
        cpu_model=cpu_model(),
        instruction_sets=instruction_sets(),
    )
    spec.write(directory)
    defaults = EncoderDefaults(
        architecture=_FAMILY,
        max_tokens=max_tokens,
        num_special_single=words.num_special_single,
        truncation_side=truncation_side(config),
        dimensions=hidden_size,
        pooling=pooling or "mean",
        has_token_types=spec.num_token_types > 1,
    )
    return spec, TextAssets(words.definition, encoder=defaults)


def _read_tokenizer(path: Path) -> HfTokenizer:
    try:
        definition = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path} is no tokenizer.json: {error}") from error
    return HfTokenizer(definition, str(path), vocab_size=None)


def _choose_output(file: OnnxFile, pooling: str | None) -> str:
    """Pooled embeddings unless a pooling was asked for: they are the author's own."""
    pooled = [name for name in file.outputs if name in POOLED_OUTPUTS]
    hidden = [name for name in file.outputs if name not in POOLED_OUTPUTS]
    if pooling is not None and not hidden:
        raise InvalidRequest(
            f"{file.path} gives {pooled[0]} only, which is pooled already", field="--pooling"
        )
    return (pooled if pooled and pooling is None else hidden)[0]
