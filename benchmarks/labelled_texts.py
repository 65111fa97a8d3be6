"""Texts with something private in a known place, and texts with nothing: made by faker, seeded.

faker makes some values that cannot be real: telephone numbers that no network gives out, cards of unknown networks. It
does not know keys and tokens; those are made as their issuers document them, which is also what the detector knows.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from faker import Faker

LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "it_IT", "es_ES", "nl_NL", "pt_BR", "en_IN", "ja_JP")
IBAN_LOCALES = ("en_GB", "de_DE", "fr_FR", "it_IT", "es_ES", "nl_NL", "pt_BR", "de_AT", "de_CH", "pl_PL")
CARDS = ("visa16", "visa13", "visa19", "mastercard", "amex", "discover", "jcb16", "diners", "maestro")
_PLAIN = ("{}", "I wrote down {} yesterday.", "It says {}, as far as I can see.", "({})", "They gave us {} and left.")
_NAMED = {
    "email": ("Mail me at {}.", "Contact: {}", "<{}> wrote:", "Is {} still your address?"),
    "phone": ("Call me at {}.", "Tel: {}", "My phone number is {}, ask for Ann.", "Telefon {}"),
    "card": ("Charge it to {} please.", "Card number: {}", "VISA {} 04/29", "my card, {}, was declined"),
    "iban": ("IBAN: {}", "Please wire it to {} by Friday.", "account {} BIC COBADEFF"),
    "ip": ("The server at {} is down.", "ssh root@{}", "{} - - [24/Nov/2026:10:00:00] GET /", "Host: {}"),
    "ssn": ("SSN: {}", "My social security number is {}."),
    "secret": (
        "export TOKEN={}",
        "My key is {}, keep it safe.",
        'headers = {{"Authorization": "Bearer {}"}}',
        "key: {}",
    ),
}
KINDS = tuple(_NAMED)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text, the private value in it (None: there is none), its kind, and where it comes from."""

    text: str
    value: str | None = None
    kind: str | None = None
    origin: str = ""


class LabelledTexts:
    """Seeded makers of labelled texts."""

    def __init__(self, seed: int = 7) -> None:
        self.dice = random.Random(seed)
        self.fakers = {locale: Faker(locale) for locale in {*LOCALES, *IBAN_LOCALES}}
        for number, locale in enumerate(sorted(self.fakers)):
            self.fakers[locale].seed_instance(seed + number)
        self.makers: dict[str, Callable[[], tuple[str, str]]] = {
            "email": self._email,
            "phone": self._phone,
            "card": self._card,
            "iban": self._iban,
            "ip": self._ip,
            "ssn": lambda: (self.fakers["en_US"].ssn(), "en_US"),
            "secret": self._secret,
        }

    def private(self, kind: str, count: int) -> Iterator[Labelled]:
        """Texts with one value of ``kind`` each, half of them with a word that names what it is."""
        for number in range(count):
            value, origin = self.makers[kind]()
            frame = self.dice.choice(_NAMED[kind] if number % 2 else _PLAIN)
            if origin == "password":  # nothing but its name tells that it is one
                frame = self.dice.choice(("password={}", "Password: {}", 'pwd = "{}"'))
            around = self.fakers["en_US"].sentence()
            yield Labelled(f"{around} {frame.format(value)}", value, kind, origin + (", named" if number % 2 else ""))

    def innocent(self, count: int) -> Iterator[Labelled]:
        """Texts with numbers and names of all sorts, none of them private in the sense of the kinds above."""
        makers = (
            self._sentence, self._order, self._measures, self._code, self._dates, self._book, self._software, self._sum,
        )  # fmt: skip
        for number in range(count):
            maker = makers[number % len(makers)]
            yield Labelled(maker(), origin=maker.__name__.strip("_"))

    def _email(self) -> tuple[str, str]:
        fake = self.fakers[self.dice.choice(LOCALES)]
        make = self.dice.choice((fake.email, fake.company_email, fake.free_email))
        return make(), "address"

    def _phone(self) -> tuple[str, str]:
        locale = self.dice.choice(LOCALES)
        return self.fakers[locale].phone_number(), locale

    def _card(self) -> tuple[str, str]:
        kind = self.dice.choice(CARDS)
        number: str = self.fakers["en_US"].credit_card_number(card_type=kind)
        if len(number) == 16 and self.dice.random() < 0.5:
            mark = self.dice.choice(" -")
            number = mark.join(number[start : start + 4] for start in range(0, 16, 4))
        return number, kind

    def _iban(self) -> tuple[str, str]:
        locale = self.dice.choice(IBAN_LOCALES)
        number: str = self.fakers[locale].iban()
        if self.dice.random() < 0.5:
            number = " ".join(number[start : start + 4] for start in range(0, len(number), 4))
        return number, locale

    def _ip(self) -> tuple[str, str]:
        fake = self.fakers["en_US"]
        return (fake.ipv4_public(), "IPv4") if self.dice.random() < 0.7 else (fake.ipv6(), "IPv6")

    def _secret(self) -> tuple[str, str]:
        dice, letters, lower = self.dice, string.ascii_letters + string.digits, string.ascii_lowercase + string.digits

        def some(count: int, alphabet: str = letters) -> str:
            return "".join(dice.choices(alphabet, k=count))

        def part(values: dict[str, str]) -> str:
            return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")

        makers: dict[str, Callable[[], str]] = {
            "AWS": lambda: "AKIA" + some(16, string.ascii_uppercase + "234567"),
            "GitHub": lambda: f"ghp_{some(36)}",
            "GitHub fine-grained": lambda: f"github_pat_{some(22)}_{some(59)}",
            "GitLab": lambda: f"glpat-{some(20)}",
            "OpenAI": lambda: f"sk-proj-{some(48)}",
            "Anthropic": lambda: f"sk-ant-api03-{some(93)}AA",
            "Hugging Face": lambda: "hf_" + some(34, string.ascii_letters),
            "Google": lambda: "AIza" + some(35),
            "Slack": lambda: f"xoxb-{some(12, string.digits)}-{some(12, string.digits)}-{some(24)}",
            "Stripe": lambda: f"sk_live_{some(24)}",
            "SendGrid": lambda: f"SG.{some(22)}.{some(43)}",
            "npm": lambda: f"npm_{some(36)}",
            "Telegram": lambda: f"{some(9, '123456789')}:AA{some(33)}",
            "JSON web token": lambda: f"{part({'alg': 'HS256'})}.{part({'sub': some(12)})}.{some(43)}",
            "password in an address": lambda: f"postgres://app:{some(12, lower)}@db.example.com",
            "password": lambda: f"{some(5)}#{some(5)}{dice.randrange(10)}",
            "private key": lambda: (
                "-----BEGIN PRIVATE KEY-----\n" + "\n".join(some(64) for _ in range(8)) + "\n-----END PRIVATE KEY-----"
            ),
        }
        origin = dice.choice(list(makers))
        return makers[origin](), origin

    def _sentence(self) -> str:
        fake = self.fakers[self.dice.choice(LOCALES)]
        return str(fake.text(200))

    def _order(self) -> str:
        fake = self.fakers["en_US"]
        return (
            f"Order {fake.random_number(digits=self.dice.randrange(6, 17), fix_len=True)} for {fake.name()}, "
            f"part {fake.bothify('??-####-####')}, tracking {fake.bothify('1Z###??##########')}, {fake.ean13()}."
        )

    def _measures(self) -> str:
        dice = self.dice
        return (
            f"Is {dice.uniform(0, 1e6):,.2f} m long, weighs {dice.random():.15f} kg, at {dice.randrange(10**9):,} "
            f"at {dice.randrange(24)}:{dice.randrange(60):02}:{dice.randrange(60):02}, "
            f"ratio {dice.randrange(9)}:{dice.randrange(9)}."
        )

    def _code(self) -> str:
        fake = self.fakers["en_US"]
        return (
            f"commit {fake.sha1()} {fake.uuid4()} @decorator def {fake.word()}(token: str = None): "
            f"password = getpass(); key = os.environ['KEY'] # {fake.md5()} x = {self.dice.randrange(2**63)}"
        )

    def _dates(self) -> str:
        fake = self.fakers["en_US"]
        return (
            f"On {fake.date()} at {fake.time()}, {fake.date('%d.%m.%Y')}, {fake.date('%d/%m/%Y')} and "
            f"{fake.iso8601()}; call it {fake.date('%Y %m %d')}, {fake.unix_time():.0f}."
        )

    def _book(self) -> str:
        fake = self.fakers["en_US"]
        pages = f"{self.dice.randrange(999)}-{self.dice.randrange(999)}"
        return f"{fake.catch_phrase()}, ISBN {fake.isbn13()}, ISBN {fake.isbn10()}, pp. {pages}, vol. 12."

    def _software(self) -> str:
        dice = self.dice
        return (
            f"Version {dice.randrange(9)}.{dice.randrange(30)}.{dice.randrange(9)}.{dice.randrange(99)} listens on "
            f"192.168.{dice.randrange(256)}.{dice.randrange(256)}:80, 127.0.0.1 and ::1; "
            f"mac {self.fakers['en_US'].mac_address()}."
        )

    def _sum(self) -> str:
        dice = self.dice
        numbers = " + ".join(str(dice.randrange(10 ** dice.randrange(1, 12))) for _ in range(6))
        return f"{numbers} = {dice.randrange(10**13)}, and 2^{dice.randrange(99)} = {2 ** dice.randrange(40, 99)}."
