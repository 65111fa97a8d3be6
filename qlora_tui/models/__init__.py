"""Base models as facts: where their files are and what they are. No torch."""
