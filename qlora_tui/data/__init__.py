"""From raw rows to trained tokens. Light libraries only, and none that the wizard would wait for."""
