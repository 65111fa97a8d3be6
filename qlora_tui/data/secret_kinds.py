"""The shapes of keys and tokens, as their issuers document them: what each begins with and how it goes on.

A declared table. Every shape begins with a fixed text, so that a search for those texts rules out nearly every row.
"""

from __future__ import annotations

SECRET_SHAPES: tuple[tuple[str, str], ...] = (
    ("AWS access key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    ("Anthropic key", r"\bsk-ant-[a-z0-9]{3,8}-[\w-]{20,120}"),
    ("OpenAI key", r"\bsk-(?:proj-|svcacct-|admin-)[\w-]{20,200}"),
    ("OpenAI key", r"\bsk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}\b"),
    ("OpenRouter key", r"\bsk-or-v1-[0-9a-f]{64}\b"),
    ("secret key", r"\bsk-[A-Za-z0-9]{32,64}\b"),
    ("Hugging Face token", r"\b(?:hf|api_org)_[A-Za-z]{34}\b"),
    ("GitHub token", r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b"),
    ("GitHub token", r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b"),
    ("GitLab token", r"\bgl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat)-[\w-]{20,64}"),
    ("Google API key", r"\bAIza[\w-]{35}(?![\w-])"),
    ("Google OAuth secret", r"\bGOCSPX-[\w-]{28}(?![\w-])"),
    ("Google OAuth token", r"\bya29\.[\w-]{30,}"),
    ("Slack token", r"\bxox[abeoprs]-(?:\d+-){0,3}[A-Za-z0-9-]{10,}"),
    ("Slack token", r"\bxapp-\d-[A-Z0-9]{9,}-\d{10,}-[0-9a-f]{32,}"),
    ("Slack webhook", r"https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/+_-]{20,}"),
    ("Discord webhook", r"https://(?:\w+\.)?discord(?:app)?\.com/api/webhooks/\d{17,20}/[\w-]{60,72}"),
    ("Stripe key", r"\b(?:sk|rk)_(?:live|test|prod)_[A-Za-z0-9]{16,247}\b"),
    ("Stripe webhook secret", r"\bwhsec_[A-Za-z0-9+/]{32,}"),
    ("Twilio key", r"\b(?:SK|AC)[0-9a-f]{32}\b"),
    ("SendGrid key", r"\bSG\.[\w-]{22}\.[\w-]{43}(?![\w-])"),
    ("Mailgun key", r"\bkey-[0-9a-f]{32}\b"),
    ("npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("PyPI token", r"\bpypi-AgEIcHlwaS5vcmc[\w-]{50,}"),
    ("Docker token", r"\bdckr_(?:pat|oat)_[\w-]{27,}"),
    ("Databricks token", r"\bdapi[0-9a-f]{32}(?:-\d)?\b"),
    ("DigitalOcean token", r"\bdo[opr]_v1_[0-9a-f]{64}\b"),
    ("Shopify token", r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b"),
    ("Square token", r"\bsq0(?:atp|csp)-[\w-]{22,43}(?![\w-])"),
    ("Telegram bot token", r"\b\d{8,10}:AA[\w-]{33}(?![\w-])"),
    ("Groq key", r"\bgsk_[A-Za-z0-9]{52}\b"),
    ("Replicate token", r"\br8_[A-Za-z0-9]{37}\b"),
    ("Azure key", r"\bAccountKey=[A-Za-z0-9+/]{86}=="),
    ("age key", r"\bAGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}\b"),
    ("JSON web token", r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}"),
    ("password in an address", r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@\"'<>{}$]{1,64}:[^\s:/@\"'<>{}$]{3,128}@[\w.-]+"),
)
"""Kind and regular expression."""

PRIVATE_KEY = (
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?!-----BEGIN)[\s\S]){16,20000}?-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"|-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\]{16,}"
)

ASSIGNED = (
    r"(?i)\b(?:pass(?:word|wd|phrase)?|pwd|secret(?:[_-]?key)?|api[_-]?key|access[_-]?(?:key|token)|auth[_-]?token"
    r"|client[_-]?secret|private[_-]?key)[\"']?[ ]{0,3}(?:=|:|:=|=>)[ ]{0,3}"
    r"[\"'`]?(?P<value>[^\s\"'`,;<>(){}\[\]]{8,200})"
)
"""A value given to a name that says it is secret; it counts if it looks like one, see ``privacy.py``."""
ASSIGNED_HINTS = ("passw", "passphrase", "pwd", "secret", "key", "token")
