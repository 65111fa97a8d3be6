"""The plain terminal: what the command line prints and reads when there is no wizard."""
