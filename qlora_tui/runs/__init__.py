"""The life of a run on disk: its directory, its event log, its process."""
