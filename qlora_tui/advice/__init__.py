"""Choices and their reasons."""
