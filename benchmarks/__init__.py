"""Benchmarks: each module measures one thing on the finished program and writes its table into the documentation."""
