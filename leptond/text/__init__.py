"""Text to tokens and back: tokenizer, chat template, detokenizer, stop strings, sampler."""

from leptond.text.chat_template import ChatTemplate
from leptond.text.detokenizer import Detokenizer
from leptond.text.encoder_tokenizer import Encoded, EncoderTokenizer, TokenSpan
from leptond.text.prompt import ChatMessage, PromptSegment, RenderedPrompt
from leptond.text.sampler import Sampler, check_finite
from leptond.text.stop_strings import StopMatcher
from leptond.text.text_layer import TextLayer
from leptond.text.tokenizer import Tokenizer

__all__ = [
    "ChatMessage",
    "ChatTemplate",
    "Detokenizer",
    "Encoded",
    "EncoderTokenizer",
    "PromptSegment",
    "RenderedPrompt",
    "Sampler",
    "StopMatcher",
    "TextLayer",
    "TokenSpan",
    "Tokenizer",
    "check_finite",
]
