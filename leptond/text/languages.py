"""Language tags, and the codes by which models call languages. Pure.

A model's code may be of ISO 639-1 (`de`), of ISO 639-3 (`deu`), with a script (`deu_Latn`) or a
region (`de_DE`). Callers write a BCP 47 tag (`de`, `de-AT`, `zh-Hant`) or that very code.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["LanguageTag", "find_language"]

# ISO 639-1, and the codes of ISO 639-2 and 639-3 for the same language. The last ones of a line are
# single languages of a macrolanguage that go by its name: `arb`, Standard Arabic, for `ar`.
_CODES = """
aa aar|ab abk|af afr|ak aka twi|am amh|an arg|ar ara arb|as asm|av ava|ay aym ayr|az aze azj|ba bak
be bel|bg bul|bi bis|bm bam|bn ben|bo bod tib|br bre|bs bos|ca cat|ce che|ch cha|co cos|cs ces cze
cv chv|cy cym wel|da dan|de deu ger|dv div|dz dzo|ee ewe|el ell gre|en eng|eo epo|es spa|et est ekk
eu eus baq|fa fas per pes|ff ful fuv|fi fin|fj fij|fo fao|fr fra fre|fy fry|ga gle|gd gla|gl glg
gn grn gug|gu guj|gv glv|ha hau|he heb|hi hin|hr hrv|ht hat|hu hun|hy hye arm|ia ina|id ind|ig ibo
io ido|is isl ice|it ita|iu iku|ja jpn|jv jav|ka kat geo|kg kon|ki kik|kk kaz|kl kal|km khm|kn kan
ko kor|kr kau knc|ks kas|ku kur kmr|kv kom|kw cor|ky kir|la lat|lb ltz|lg lug|li lim|ln lin|lo lao
lt lit|lv lav lvs|mg mlg plt|mh mah|mi mri mao|mk mkd mac|ml mal|mn mon khk|mr mar|ms msa may zsm
mt mlt|my mya bur|nb nob|nd nde|ne nep npi|nl nld dut|nn nno|no nor|nr nbl|nv nav|ny nya|oc oci
om orm gaz|or ori ory|os oss|pa pan|pl pol|ps pus pbt|pt por|qu que quy|rm roh|rn run|ro ron rum
ru rus|rw kin|sa san|sc srd|sd snd|se sme|sg sag|si sin|sk slk slo|sl slv|sm smo|sn sna|so som
sq sqi alb als|sr srp|ss ssw|st sot|su sun|sv swe|sw swa swh|ta tam|te tel|tg tgk|th tha|ti tir
tk tuk|tl tgl|tn tsn|to ton|tr tur|ts tso|tt tat|ty tah|ug uig|uk ukr|ur urd|uz uzb uzn|ve ven
vi vie|wa wln|wo wol|xh xho|yi yid ydd|yo yor|za zha|zh zho chi|zu zul
"""
_SHORT_CODES = {
    code: codes[0]
    for line in _CODES.replace("\n", "|").split("|")
    if (codes := line.split())
    for code in codes
}
_SCRIPT_LETTERS = 4
_REGION_LETTERS = (2, 3)


@dataclass(frozen=True, slots=True)
class LanguageTag:
    """What a tag or a code says.

    Attributes:
        language: the ISO 639-1 code where there is one.
        script, region: in small letters; "" where it names none.
    """

    language: str
    script: str = ""
    region: str = ""

    @classmethod
    def parse(cls, text: str) -> LanguageTag:
        """Read a BCP 47 tag or a model's code; other subtags than script and region are ignored."""
        first, *rest = text.casefold().replace("_", "-").split("-")
        script = next((part for part in rest if len(part) == _SCRIPT_LETTERS), "")
        region = next((part for part in rest if len(part) in _REGION_LETTERS), "")
        return cls(_SHORT_CODES.get(first, first), script, region)

    def fits(self, other: LanguageTag) -> bool:
        """Whether both may mean the same: what only one of them says is no difference."""
        return (
            self.language == other.language
            and (self.script == other.script or not (self.script and other.script))
            and (self.region == other.region or not (self.region and other.region))
        )


def find_language(asked: str, known: Collection[str]) -> tuple[str, ...]:
    """Return which of the known codes `asked` means: one, none, or several when it is ambiguous.

    A code itself comes first, then one that says exactly the same, then those that may mean it;
    a region is let go when the model knows the language without it.
    """
    if asked in known:
        return (asked,)
    wanted = LanguageTag.parse(asked)
    tags = {code: LanguageTag.parse(code) for code in known}
    same = tuple(code for code, tag in tags.items() if tag == wanted)
    if same:
        return same
    return tuple(code for code, tag in tags.items() if tag.fits(wanted))
