"""Which converter of the engine makes a model that is not in its format yet."""

from __future__ import annotations

from pathlib import Path

__all__ = ["conversion_advice"]

# The first line whose files are there says it; `*` counts as in a shell.
_SIGNS = (
    (("decoder.yml", "*.npz"), "ct2-opus-mt-converter --model_dir"),
    (("*.npz",), "ct2-marian-converter --model_path"),
    (("config.json", "*.safetensors"), "ct2-transformers-converter --model"),
    (("config.json", "pytorch_model*.bin"), "ct2-transformers-converter --model"),
    (("hparams.json", "model.ckpt*"), "ct2-openai-gpt2-converter --model_path"),
    (("dict.*.txt", "*.pt"), "ct2-fairseq-converter --model_path"),
    (("*.pt",), "ct2-opennmt-py-converter --model_path"),
    (("checkpoint", "*.index"), "ct2-opennmt-tf-converter --model_path"),
)
_ALL = "ct2-transformers-converter, ct2-opus-mt-converter, ct2-marian-converter, "
_ALL += "ct2-fairseq-converter, ct2-opennmt-py-converter, ct2-opennmt-tf-converter"


def conversion_advice(source: Path) -> str:
    """Return a sentence that says what `source` lacks and which command makes it."""
    folder = source if source.is_dir() else source.parent
    lead = f"{source} is no model of CTranslate2 (it has no model.bin and config.json)"
    for patterns, command in _SIGNS:
        if all(any(folder.glob(pattern)) for pattern in patterns):
            return (
                f"{lead}: run `{command} {source} --output_dir NEW` in an environment with that "
                "converter's own packages, and import NEW with --tokenizer"
            )
    return f"{lead}: convert it with one of {_ALL}, and import that with --tokenizer"
