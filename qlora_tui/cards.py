"""Cards that are not in this machine: what would fit on one, and how fast it could be at best.

``memory`` is what the driver reports as total: less than the label says where error correction or the driver keep some
back. ``bandwidth`` is the vendor's peak in GB/s (10^9 bytes). ``matrix_rate`` is the vendor's dense rate of the tensor
cores with 16-bit inputs and 32-bit sums, in TFLOP/s: bf16 from capability 8.0, fp16 below. Totals come from public
listings of the vendor's own monitoring tool; where no rate is published, there is none.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qlora_tui.errors import UsageError
from qlora_tui.text import one_line

if TYPE_CHECKING:
    from qlora_tui.gpus import Capability

_MIB, _GIB = 1 << 20, 1 << 30
_MOST_BYTES = 4096 * _GIB


@dataclass(frozen=True, slots=True)
class Card:
    """A kind of GPU, or just an amount of memory."""

    name: str
    memory: int
    """Bytes that the driver reports as total."""
    bandwidth: float | None = None
    """GB/s, 10^9 bytes."""
    matrix_rate: float | None = None
    """Dense TFLOP/s with 16-bit inputs and 32-bit sums: bf16 if the card has it, else fp16."""
    capability: Capability | None = None
    aliases: tuple[str, ...] = ()
    """Other names that mean this card and no other."""
    size: int = 0
    """Memory as the label says, in GB."""
    unified: bool = False
    """Whether the memory is the machine's own."""

    @property
    def bf16(self) -> bool | None:
        """Whether it computes in bf16; None for a bare amount of memory."""
        from qlora_tui.gpus import supports_bf16  # what it takes to ask a driver is not needed for a table

        return supports_bf16(self.capability)

    @property
    def bf16_rate(self) -> float | None:
        """Dense bf16 TFLOP/s; None if the card has no bf16 or no rate is published."""
        return self.matrix_rate if self.bf16 else None


# name | label GB | MiB reported | GB/s | TFLOP/s | capability | aliases
_TABLE = """
# Pascal and Volta: product pages and the Volta white paper. Pascal has no tensor cores: its rate is that of fp32.
GTX 1080 Ti                       | 11  | 11264  | 484   | 11.3  | 6.1
V100 PCIe 16GB                    | 16  | 16384  | 900   | 112   | 7.0
V100 SXM2 16GB                    | 16  | 16384  | 900   | 125   | 7.0  | V100 16GB
V100 PCIe 32GB                    | 32  | 32768  | 900   | 112   | 7.0
V100 SXM2 32GB                    | 32  | 32768  | 900   | 125   | 7.0  | V100 32GB
# Turing: the Turing white paper and product pages; GeForce cards sum in 32 bits at half the rate of fp16 sums.
RTX 2060                          | 6   | 6144   | 336   | 25.8  | 7.5
RTX 2060 SUPER                    | 8   | 8192   | 448   | 28.7  | 7.5
RTX 2070                          | 8   | 8192   | 448   | 29.9  | 7.5
RTX 2070 SUPER                    | 8   | 8192   | 448   | 36.2  | 7.5
RTX 2080                          | 8   | 8192   | 448   | 40.3  | 7.5
RTX 2080 SUPER                    | 8   | 8192   | 496   | 44.6  | 7.5
RTX 2080 Ti                       | 11  | 11264  | 616   | 53.8  | 7.5
TITAN RTX                         | 24  | 24576  | 672   | 130.5 | 7.5
Quadro RTX 6000                   | 24  | 24576  | 672   | 130.5 | 7.5
Quadro RTX 8000                   | 48  | 49152  | 672   | 130.5 | 7.5
T4                                | 16  | 15360  | 320   | 65    | 7.5
# Ampere, data centre: the data sheets of A100, A30, A40, A10; the cloud vendor's of A10G.
A100 40GB PCIe                    | 40  | 40960  | 1555  | 312   | 8.0
A100 40GB SXM4                    | 40  | 40960  | 1555  | 312   | 8.0  | A100 40GB
A100 80GB PCIe                    | 80  | 81920  | 1935  | 312   | 8.0
A100 80GB SXM4                    | 80  | 81920  | 2039  | 312   | 8.0  | A100 80GB
A30                               | 24  | 24576  | 933   | 165   | 8.0
A40                               | 48  | 46068  | 696   | 149.7 | 8.6
A10                               | 24  | 23028  | 600   | 125   | 8.6
A10G                              | 24  | 23028  | 600   | 70    | 8.6
# Ampere, GeForce: the GA102 white paper and product pages; others at twice their fp32 rate, which is the paper's ratio.
RTX 3050                          | 8   | 8192   | 224   | 18.2  | 8.6
RTX 3060                          | 12  | 12288  | 360   | 25.5  | 8.6
RTX 3060 Ti                       | 8   | 8192   | 448   | 32.4  | 8.6
RTX 3070                          | 8   | 8192   | 448   | 40.6  | 8.6
RTX 3070 Ti                       | 8   | 8192   | 608   | 43.5  | 8.6
RTX 3080 10GB                     | 10  | 10240  | 760   | 59.5  | 8.6
RTX 3080 12GB                     | 12  | 12288  | 912   | 61.3  | 8.6
RTX 3080 Ti                       | 12  | 12288  | 912   | 68.2  | 8.6
RTX 3090                          | 24  | 24576  | 936   | 71.0  | 8.6
RTX 3090 Ti                       | 24  | 24564  | 1008  | 80.0  | 8.6
# Their laptop versions run at whatever power the maker allows, and the vendor publishes no rate.
RTX 3060 Laptop                   | 6   | 6144   | 336   | -     | 8.6
RTX 3070 Laptop                   | 8   | 8192   | 448   | -     | 8.6
RTX 3080 Laptop 16GB              | 16  | 16384  | 448   | -     | 8.6
# Ampere, workstation: data sheets, whose tensor rate is with sparsity, halved.
RTX A2000 12GB                    | 12  | 12282  | 288   | 31.9  | 8.6
RTX A4000                         | 16  | 16376  | 448   | 76.7  | 8.6
RTX A4500                         | 20  | 20470  | 640   | 94.6  | 8.6
RTX A5000                         | 24  | 24564  | 768   | 111.1 | 8.6
RTX A6000                         | 48  | 49140  | 768   | 154.8 | 8.6
# Ada, GeForce: product pages; "AI TOPS" there is 8-bit with sparsity, eight times the rate wanted here (white paper).
RTX 4060                          | 8   | 8188   | 272   | 30.2  | 8.9
RTX 4060 Ti 8GB                   | 8   | 8188   | 288   | 44.1  | 8.9
RTX 4060 Ti 16GB                  | 16  | 16380  | 288   | 44.1  | 8.9
RTX 4070                          | 12  | 12282  | 504   | 58.3  | 8.9
RTX 4070 SUPER                    | 12  | 12282  | 504   | 71.0  | 8.9
RTX 4070 Ti                       | 12  | 12282  | 504   | 80.1  | 8.9
RTX 4070 Ti SUPER                 | 16  | 16376  | 672   | 88.2  | 8.9
RTX 4080                          | 16  | 16376  | 717   | 97.5  | 8.9
RTX 4080 SUPER                    | 16  | 16376  | 736   | 104.5 | 8.9
RTX 4090                          | 24  | 24564  | 1008  | 165.2 | 8.9
RTX 4050 Laptop                   | 6   | 6141   | 192   | 24.2  | 8.9
RTX 4060 Laptop                   | 8   | 8188   | 256   | 29.1  | 8.9
RTX 4070 Laptop                   | 8   | 8188   | 256   | 40.1  | 8.9
RTX 4080 Laptop                   | 12  | 12282  | 432   | 67.8  | 8.9
RTX 4090 Laptop                   | 16  | 16376  | 576   | 85.8  | 8.9
# Ada, workstation and data centre: data sheets.
RTX 4500 Ada                      | 24  | 24570  | 432   | 158.5 | 8.9
RTX 5000 Ada                      | 32  | 32760  | 576   | 261.1 | 8.9
RTX 6000 Ada                      | 48  | 49140  | 960   | 364.2 | 8.9
L4                                | 24  | 23034  | 300   | 121   | 8.9
L40                               | 48  | 46068  | 864   | 181   | 8.9
L40S                              | 48  | 46068  | 864   | 362   | 8.9
# Hopper: data sheets, whose rate is with sparsity, halved.
H100 PCIe                         | 80  | 81559  | 2039  | 756   | 9.0
H100 SXM5                         | 80  | 81559  | 3352  | 989   | 9.0  | H100 80GB HBM3
H100 NVL                          | 94  | 95830  | 3938  | 835   | 9.0
H200 SXM5                         | 141 | 143771 | 4800  | 989   | 9.0  | H200
H200 NVL                          | 141 | 143771 | 4800  | 835   | 9.0
# Blackwell, data centre: data sheet, likewise.
B200                              | 180 | 183359 | 8000  | 2250  | 10.0
# Blackwell, GeForce: product pages; "AI TOPS" there is 4-bit with sparsity, sixteen times the rate wanted here.
RTX 5050                          | 8   | 8151   | 320   | 26.3  | 12.0
RTX 5060                          | 8   | 8151   | 448   | 38.4  | 12.0
RTX 5060 Ti 8GB                   | 8   | 8151   | 448   | 47.4  | 12.0
RTX 5060 Ti 16GB                  | 16  | 16311  | 448   | 47.4  | 12.0
RTX 5070                          | 12  | 12227  | 672   | 61.7  | 12.0
RTX 5070 Ti                       | 16  | 16303  | 896   | 87.9  | 12.0
RTX 5080                          | 16  | 16303  | 960   | 112.6 | 12.0
RTX 5090                          | 32  | 32607  | 1792  | 209.5 | 12.0
RTX 5070 Laptop                   | 8   | 8151   | 384   | 49.9  | 12.0
RTX 5070 Ti Laptop                | 12  | 12227  | 672   | 62.0  | 12.0
RTX 5080 Laptop                   | 16  | 16303  | 896   | 83.4  | 12.0
RTX 5090 Laptop                   | 24  | 24463  | 896   | 114.0 | 12.0
# Blackwell, workstation: data sheet and white paper; full rate with 32-bit sums.
RTX PRO 6000 Blackwell            | 96  | 97887  | 1792  | 503.8 | 12.0 | RTX PRO 6000 Blackwell Workstation Edition
RTX PRO 6000 Blackwell Max-Q      | 96  | 97887  | 1792  | 438.9 | 12.0
# Unified memory: module and system data sheets, which publish no dense 16-bit rate; the memory is the system's total.
DGX Spark GB10                    | 128 | 122548 | 273   | -     | 12.1 | GB10 ; DGX Spark
Jetson AGX Orin 32GB              | 32  | 30697  | 205   | -     | 8.7
Jetson AGX Orin 64GB              | 64  | 62464  | 205   | -     | 8.7
"""


def _parse(table: str) -> Iterator[Card]:
    for line in table.strip().splitlines():
        if line.startswith("#"):
            continue
        name, size, memory, bandwidth, rate, capability, aliases = (*map(str.strip, line.split("|")), "")[:7]
        major, minor = capability.split(".")
        yield Card(
            name=name,
            memory=int(memory) * _MIB,
            bandwidth=float(bandwidth),
            matrix_rate=None if rate == "-" else float(rate),
            capability=(int(major), int(minor)),
            aliases=tuple(alias.strip() for alias in aliases.split(";") if alias.strip()),
            size=int(size),
            unified=(int(major), int(minor)) in ((8, 7), (12, 1)),
        )


CARDS = tuple(_parse(_TABLE))
"""Every known card, by generation."""

_AMOUNT = re.compile(r"(?<![a-z0-9.])(\d{1,7}(?:[.,]\d{1,3})?)\s*(mib|mb|gib|gb|g|tib|tb)\b")
_UNITS = {"m": _MIB, "g": _GIB, "t": 1 << 40}
# Words that tell no card from another.
_NOISE = frozenset(
    (
        "nvidia", "geforce", "rtx", "gtx", "tesla", "jetson", "agx", "tegra", "nvgpu", "gpu", "graphics", "card",
        "generation", "edition", "workstation", "vram", "memory", "with", "a", "an", "the",
    )
)  # fmt: skip
_SAME = {"mobile": "laptop", "notebook": "laptop", "sxm2": "sxm", "sxm4": "sxm", "sxm5": "sxm", "maxq": "max"}


def plan_for(text: str) -> Card:
    """The card that ``text`` means: a name (``RTX 3060``, ``3060 12gb``, ``A100-80``) or an amount (``12GiB``).

    A label's GB are taken as GiB, as vendors do for memory of this kind.

    Raises:
        UsageError: if no card is meant, or more than one.
    """
    amount, words = _read(text)
    if not words:
        return _bare(text, amount)
    if found := _matches(words, amount):
        if len(found) == 1:
            return found[0]
        raise UsageError(
            f"Which card is {one_line(text, 60)}?",
            f"The name fits {_listed(found)}.",
            "Give one of these names in full.",
        )
    raise _unknown(text, words, amount)


def card_named(name: str, memory: int | None = None) -> Card | None:
    """The card that a driver's name means, or None if that is not certain; never raises.

    Args:
        name: As NVML gives it, such as ``NVIDIA A100-SXM4-80GB``.
        memory: Total bytes, which tell apart cards of one name.
    """
    amount, words = _read(name)
    found = _exact(words, amount) if words else []
    if memory is not None:
        found = [card for card in found if abs(card.memory - memory) <= 0.06 * card.memory]
    return found[0] if len(found) == 1 else None


def _read(text: str) -> tuple[int | None, frozenset[str]]:
    """Amount of memory in bytes, if one is named, and the words that tell cards apart."""
    plain = one_line(text, 100).lower()
    amount: int | None = None
    for number, unit in _AMOUNT.findall(plain):
        amount = round(float(number.replace(",", ".")) * _UNITS[unit[0]])
    plain = _AMOUNT.sub(" ", plain)
    # "rtx3060ti" and "4070tisuper" are written together as often as apart.
    plain = re.sub(r"(\d{4})(?=ti|super|laptop)|(ti)(?=super)|([rg]tx)(?=\d)", r"\1\2\3 ", plain)
    words = [_SAME.get(word, word) for word in re.findall(r"[a-z0-9.]+", plain)]
    # "A100-80": a number after a name that comes in several sizes is its size.
    if amount is None and len(words) > 1 and words[-1] in ("16", "32", "40", "80", "94", "141"):
        amount = int(words.pop()) * _GIB
    return amount, frozenset(word for word in words if word not in _NOISE)


def _bare(text: str, amount: int | None) -> Card:
    if amount is None or not 0 < amount <= _MOST_BYTES or re.match(r"\s*[-+]", text):
        raise UsageError(
            f"{one_line(text, 60) or 'An empty name'} is no card.",
            "It names neither a card nor an amount of memory.",
            'Give a card, such as "RTX 3060", or an amount, such as 12GiB.',
        )
    return Card(f"{amount / _GIB:g} GiB card", amount, size=round(amount / _GIB))


def _exact(words: frozenset[str], amount: int | None) -> list[Card]:
    """Cards whose name, or an alias, has these words and no other; an alias that names an amount needs it named."""
    found = []
    for card in CARDS:
        aliases = (_read(alias) for alias in card.aliases)
        if words == _read(card.name)[1] or any(words == own and size in (None, amount) for size, own in aliases):
            found.append(card)
    return found


def _matches(words: frozenset[str], amount: int | None) -> list[Card]:
    """Cards of exactly these words, else those with these words among others; of that size if one is named."""
    found = _exact(words, amount) or [card for card in CARDS if words <= _read(card.name)[1]]
    return [card for card in found if amount is None or _is_size(card, amount)]


def _is_size(card: Card, amount: int) -> bool:
    """Whether an amount is the card's label or what its driver reports, to a tenth of a GiB."""
    return any(abs(amount - size) <= _GIB // 10 for size in (card.size * _GIB, card.memory))


def _unknown(text: str, words: frozenset[str], amount: int | None) -> UsageError:
    what = f"The card {one_line(text, 60)} is not known."
    if amount is not None and (others := _matches(words, None)):
        sizes = ", ".join(f"{card.name} ({card.size} GB)" for card in others[:4])
        return UsageError(
            what, f"No card of this name has that much memory; there is {sizes}.", "Give one of these, or the amount."
        )
    nearness = {card.name: _nearness(card, one_line(text, 60).lower(), words) for card in CARDS}
    nearest = [name for name in sorted(nearness, key=lambda name: -nearness[name]) if nearness[name] > 0.5][:4]
    why = f"The nearest names are {', '.join(nearest)}." if nearest else f"None of the {len(CARDS)} names is like it."
    return UsageError(what, why, "Give one of the known names, or the card's memory, such as 12GiB.")


def _nearness(card: Card, text: str, words: frozenset[str]) -> float:
    """How like its name a text is; a number in common, which is what people get right, outweighs the rest."""
    shared = sum(any(character.isdigit() for character in word) for word in words & _read(card.name)[1])
    return shared + difflib.SequenceMatcher(None, text, card.name.lower()).ratio()


def _listed(cards: Iterable[Card], most: int = 8) -> str:
    names = [card.name for card in cards]
    if len(names) > most:
        return ", ".join(names[:most]) + f" and {len(names) - most} more"
    return ", ".join(names[:-1]) + f" and {names[-1]}"
