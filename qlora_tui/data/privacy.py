"""Private data and secrets in text: where they stand and of what kind they are.

Whatever has check digits or a registry is checked against it (cards, IBANs, phone numbers, addresses), so that a
product number is not taken for a card. Names of people are not looked for: that takes a language model and guesses.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from qlora_tui.data.secret_kinds import ASSIGNED, ASSIGNED_HINTS, PRIVATE_KEY, SECRET_SHAPES

Kind = Literal["secret", "iban", "card", "ssn", "email", "ip", "phone"]
"""What is looked for; where two overlap, the earlier one counts."""
KINDS: tuple[Kind, ...] = get_args(Kind)

REGIONS = ("US", "GB", "DE", "FR", "IT", "ES", "NL", "CH", "AT", "BE", "IN", "AU", "BR", "MX", "JP")
"""Where a number without a country code may be from, if the text says that it is a telephone number."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Something private in a text: the characters from ``start`` to before ``stop``.

    ``value`` is the same for all spellings of one thing; ``label`` names it for people.
    """

    kind: Kind
    start: int
    stop: int
    value: str
    label: str


def scan(text: str) -> list[Hit]:
    """Everything private in ``text``, in order and without overlaps."""
    hits: list[Hit] = []
    # Each search is preceded by a test that rules out nearly every text at the price of reading it.
    if "@" in text:
        hits += _emails(text)
    if _LONG_TOKEN.search(text) is not None or "PRIVATE KEY" in text:
        hits += _secrets(text)
    if ("=" in text or ":" in text) and any(hint in text.lower() for hint in ASSIGNED_HINTS):
        hits += _assigned(text)
    if _SIX_DIGITS.search(text) is not None:
        hits += [*_cards(text), *_ibans(text), *_social_security(text), *_phones(text), *_ip4(text)]
    if text.count(":") >= 2:
        hits += _ip6(text)
    return _without_overlaps(hits) if len(hits) > 1 else hits


_LONG_TOKEN = re.compile(r"[A-Za-z0-9_/+.:-]{20}")
_SIX_DIGITS = re.compile(r"\d(?:[ ().\-/]{0,3}\d){5}|\d\.\d{1,3}\.\d{1,3}\.\d")


def _without_overlaps(hits: list[Hit]) -> list[Hit]:
    taken: list[Hit] = []
    for hit in sorted(hits, key=lambda each: (KINDS.index(each.kind), each.start - each.stop)):
        if all(hit.stop <= other.start or hit.start >= other.stop for other in taken):
            taken.append(hit)
    return sorted(taken, key=lambda each: each.start)


_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9_](?:[\w.!#$%&'*+/=?^`{|}~-]{0,62}[\w+-])?@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w-])"
)


def _emails(text: str) -> Iterator[Hit]:
    for match in _EMAIL.finditer(text):
        if ".." not in match.group():
            yield Hit("email", *match.span(), match.group().lower(), "e-mail address")


_SECRET = re.compile("|".join(f"(?P<s{index}>{shape})" for index, (_, shape) in enumerate(SECRET_SHAPES)))
_PRIVATE_KEY = re.compile(PRIVATE_KEY)


def _secrets(text: str) -> Iterator[Hit]:
    for match in _SECRET.finditer(text):
        value = match.group()
        # Documentation writes sk-xxxxxxxx; a real token is never of so few different characters.
        if len(set(value[-16:])) >= 5 and match.lastgroup is not None:
            yield Hit("secret", *match.span(), value, SECRET_SHAPES[int(match.lastgroup[1:])][0])
    if "PRIVATE KEY" in text:
        for match in _PRIVATE_KEY.finditer(text):
            yield Hit("secret", *match.span(), match.group(), "private key")


_ASSIGNED = re.compile(ASSIGNED)
_PLACEHOLDER = re.compile(
    r"(?i)your|example|change|placeholder|xxx|\*\*|\.\.\.|<|\$\{?\w|%\w|getenv|environ|required|null|none"
)


def _assigned(text: str) -> Iterator[Hit]:
    for match in _ASSIGNED.finditer(text):
        value = match["value"].rstrip(".:!?")
        kinds = sum(bool(re.search(part, value)) for part in (r"[a-z]", r"[A-Z]", r"\d", r"[^\w]"))
        has_digit = any(character.isdigit() for character in value)
        if len(value) >= 8 and kinds >= 2 and has_digit and not _PLACEHOLDER.search(value):
            start = match.start("value")
            yield Hit("secret", start, start + len(value), value, "password or key")


_CARD = re.compile(
    r"(?<![\w.,-])(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -]?)\d{6}\2\d{4,5}|\d{12,19})(?![\w-]|[.,]\d)"
)
# First digits of the networks' numbers, and how long those are.
_NETWORKS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12,15}|35(?:2[89]|[3-8]\d)\d{12,15}|62\d{14,17}"
    r"|(?:5(?:018|020|038|893|[6-8]\d\d)|6(?:304|390|759|76[1-3]))\d{8,15}"
)
_CARD_WORD = re.compile(
    r"(?i)(?:card|visa|maestro|master|credit|debit|\bcc\b|charge|amex|jcb|karte|carte|tarjeta)[^\n\d]{0,30}$"
)


def _cards(text: str) -> Iterator[Hit]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        # One number in ten has the right check digit, and product numbers have thirteen digits.
        usual = len(digits) in (14, 15, 16) or _CARD_WORD.search(text[max(0, match.start() - 45) : match.start()])
        if usual and _NETWORKS.fullmatch(digits) and _valid("stdnum.luhn", digits) and len(set(digits)) > 1:
            yield Hit("card", *match.span(), digits, "card number")


_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?|[A-Z0-9]{11,30})(?![A-Za-z0-9])"
)


def _ibans(text: str) -> Iterator[Hit]:
    for match in _IBAN.finditer(text):
        value = match.group()
        # A word in capitals behind the number looks like its last group.
        while len(value) >= 15:
            if _valid("stdnum.iban", value):
                yield Hit("iban", match.start(), match.start() + len(value), value.replace(" ", ""), "IBAN")
                break
            value = value.rpartition(" ")[0]


_SOCIAL_SECURITY = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")


def _social_security(text: str) -> Iterator[Hit]:
    for match in _SOCIAL_SECURITY.finditer(text):
        if _valid("stdnum.us.ssn", match.group()):
            yield Hit("ssn", *match.span(), match.group(), "US social security number")


def _valid(module: str, value: str) -> bool:
    return bool(_checker(module)(value))


@functools.cache
def _checker(module: str) -> Callable[[str], bool]:
    # Imported at the first candidate: most data has none, and the wizard reads this package without its libraries.
    import importlib

    checker: Callable[[str], bool] = importlib.import_module(module).is_valid
    return checker


_IP4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IP6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:|:){2,7}(?::?[0-9A-Fa-f]{1,4})?(?![\w:])")
_VERSION = re.compile(r"(?i)(?:\bv|version|release|\bver\.?|==|>=|~=|section|chapter)[ :]{0,2}$")


def _ip4(text: str) -> Iterator[Hit]:
    for match in _IP4.finditer(text):
        before = text[max(0, match.start() - 12) : match.start()]
        if _is_public(match.group()) and not _VERSION.search(before):
            yield Hit("ip", *match.span(), match.group(), "IP address")


def _ip6(text: str) -> Iterator[Hit]:
    for match in _IP6.finditer(text):
        if match.group().count(":") >= 3 and _is_public(match.group()):
            yield Hit("ip", *match.span(), match.group().lower(), "IP address")


def _is_public(value: str) -> bool:
    """Whether the address belongs to somebody; those of home networks and manuals do not."""
    try:
        return ipaddress.ip_address(value).is_global
    except ValueError:
        return False


_NORTH_AMERICAN = re.compile(
    r"(?<![\w+.-])(?:(?:\+|00)?1[ .-]?)?(?:\([2-9]\d{2}\)[ ]?|[2-9]\d{2}[.-]|(?<=1 )[2-9]\d{2} |(?<=1-)[2-9]\d{2}-)"
    r"[2-9]\d{2}[ .-]\d{4}(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?(?![\w-]|\.\d)"
)
_INTERNATIONAL = re.compile(
    r"(?<![\w+])\(?(?:\+|00(?=[1-9]\d{0,3}[ ./(-]))[1-9]\d{0,3}\)?(?:[ ]?\(0?\d{0,5}\))?"
    r"(?:[ .\-/]{0,2}\d){5,14}(?![\w])"
)
_NATIONAL = re.compile(r"(?<![\w.,+-])(?<!\d:)\(?\d(?:[ ().\-/]{0,2}\d){6,13}(?![\w-]|[.,]\d)")
_TRUNK = re.compile(r"\(?0[1-9]")
_DATE = re.compile(r"(?:19|20)\d\d([-/. ])\d{1,2}\1\d{1,2}|\d{1,2}([-/. ])\d{1,2}\2(?:19|20)\d\d")
_TELEPHONE = re.compile(
    r"(?i)(?:phone|telephone|\btel\b|\bmobil[ei]?\b|\bcell\b|whatsapp|\bfax\b|telefon|handy|téléphone|numéro|teléfono"
    r"|celular|telefono|telefone|rufnummer|hotline|電話|电话|☎|📞)[^\n\d]{0,30}$"
    r"|\b(?:call|text|sms|ring|dial|reach|contact)(?: (?:me|us|him|her|them))?(?: (?:at|on|under))?:? ?$"
)


def _phones(text: str) -> Iterator[Hit]:
    for match in _INTERNATIONAL.finditer(text):
        number = re.sub(r"^\(?(?:\+|00)", "+", match.group())
        if (value := _telephone(number, None)) is not None:
            yield Hit("phone", *match.span(), value, "telephone number")
    for match in _NORTH_AMERICAN.finditer(text):
        digits = re.sub(r"\D", "", re.split("[xe]", match.group())[0])
        yield Hit("phone", *match.span(), "+1" + digits[-10:], "telephone number")
    for match in _NATIONAL.finditer(text):
        number = match.group()
        written_as_one = _TRUNK.match(number) and not number.isdigit()
        named = _TELEPHONE.search(text[max(0, match.start() - 50) : match.start()])
        if (written_as_one or named) and not _DATE.match(number):
            for region in REGIONS:
                if (value := _telephone(number, region)) is not None:
                    yield Hit("phone", *match.span(), value, "telephone number")
                    break


@functools.lru_cache(maxsize=4096)
def _telephone(number: str, region: str | None) -> str | None:
    """The number in its one international form; None if no such number is given out."""
    import phonenumbers

    try:
        parsed: Any = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(parsed):
        return None
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


def masked(text: str, hits: list[Hit]) -> str:
    """``text`` with most of everything private hidden: what is left shows what it was, not whose."""
    parts, place = [], 0
    for hit in hits:
        parts += [text[place : hit.start], _mask(hit, text[hit.start : hit.stop])]
        place = hit.stop
    return "".join([*parts, text[place:]])


def _mask(hit: Hit, value: str) -> str:
    if hit.kind == "email":
        name, _, host = value.partition("@")
        return f"{name[0]}•••@•••.{host.rpartition('.')[2]}"
    if hit.kind == "secret":
        return f"{value[:4]}•••" if len(value) >= 16 and not value.startswith("-----") else "•••"
    return f"{value[:2]}•••{value[-2:]}" if hit.kind in ("card", "iban", "phone") else "•••"


_ROUNDS = 4


class Redactor:
    """Puts a placeholder in place of everything private: the same thing becomes the same one, in all data of a run.

    Attributes:
        replaced: Values replaced so far, by kind, each occurrence counted.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[Kind, str], str] = {}
        self._last: Counter[Kind] = Counter()
        self.replaced: Counter[str] = Counter()

    def text(self, text: str) -> str:
        """``text`` with placeholders such as ``<EMAIL_1>``."""
        # Once is not always enough: what was hidden by a neighbour may show when that is gone.
        for _ in range(_ROUNDS):
            if not (hits := scan(text)):
                break
            text = self._replaced(text, hits)
        return text

    def _replaced(self, text: str, hits: list[Hit]) -> str:
        parts, place = [], 0
        for hit in hits:
            parts += [text[place : hit.start], self._name(hit)]
            place = hit.stop
            self.replaced[hit.kind] += 1
        return "".join([*parts, text[place:]])

    def values(self, value: Any) -> Any:
        """The same for every text inside lists and objects; names of fields stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.values(item) for item in value]
        if isinstance(value, dict):
            return {name: self.values(item) for name, item in value.items()}
        return value

    def _name(self, hit: Hit) -> str:
        key = (hit.kind, hit.value)
        if key not in self._names:
            self._last[hit.kind] += 1
            self._names[key] = f"<{hit.kind.upper()}_{self._last[hit.kind]}>"
        return self._names[key]
