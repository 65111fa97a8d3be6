"""The terminal application: it shows and asks, and decides nothing."""
