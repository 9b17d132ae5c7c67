from __future__ import annotations

import pytest

from leptond.text.languages import LanguageTag, find_language

NLLB = ("arb_Arab", "deu_Latn", "eng_Latn", "srp_Cyrl", "zho_Hans", "zho_Hant")
MBART = ("de_DE", "en_XX", "pt_XX", "zh_CN")
M2M = ("de", "en", "pt", "zh")
OPUS = ("deu", "nld", "pt", "pt_br")


@pytest.mark.parametrize(
    ("asked", "known", "found"),
    [
        ("deu_Latn", NLLB, ("deu_Latn",)),
        ("de", NLLB, ("deu_Latn",)),
        ("DE-de", NLLB, ("deu_Latn",)),
        ("ger", NLLB, ("deu_Latn",)),
        ("ar", NLLB, ("arb_Arab",)),
        ("zh-Hant", NLLB, ("zho_Hant",)),
        ("zh-hant-TW", NLLB, ("zho_Hant",)),
        ("zh", NLLB, ("zho_Hans", "zho_Hant")),
        ("sr-Latn", NLLB, ()),
        ("fr", NLLB, ()),
        ("de", MBART, ("de_DE",)),
        ("de-AT", MBART, ()),
        ("en", MBART, ("en_XX",)),
        ("de-AT", M2M, ("de",)),
        ("deu", M2M, ("de",)),
        ("nl", OPUS, ("nld",)),
        ("pt", OPUS, ("pt",)),
        ("pt-BR", OPUS, ("pt_br",)),
        ("pt-PT", OPUS, ("pt",)),
        ("", M2M, ()),
        ("-", M2M, ()),
    ],
)
def test_which_code_a_tag_means(asked: str, known: tuple[str, ...], found: tuple[str, ...]):
    assert find_language(asked, known) == found


def test_a_tag_is_read_by_its_parts():
    assert LanguageTag.parse("zho-Hans-CN") == LanguageTag("zh", "hans", "cn")
    assert LanguageTag.parse("ast_Latn") == LanguageTag("ast", "latn", "")
