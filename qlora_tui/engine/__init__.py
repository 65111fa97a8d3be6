"""What runs in child processes: the one place that imports torch."""
