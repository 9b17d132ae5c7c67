"""The precisions of a variant, by the names that the engine gives its types."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Precision"]


class Precision(StrEnum):
    """Type of the weights of linear layers, then that of everything else where it differs."""

    FLOAT32 = "float32"
    INT8 = "int8"  # with float32
    INT8_FLOAT32 = "int8_float32"
    INT8_BFLOAT16 = "int8_bfloat16"
    INT8_FLOAT16 = "int8_float16"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"

    @property
    def has_int8_weights(self) -> bool:
        """Whether weights of linear layers and embeddings are bytes."""
        return self.value.startswith("int8")

    @property
    def float_type(self) -> str:
        """Type of what is not bytes."""
        return "float32" if self is Precision.INT8 else self.value.removeprefix("int8_")
