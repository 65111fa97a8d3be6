"""From raw rows to trained tokens. Pure: tokenizers and jinja2 only."""
