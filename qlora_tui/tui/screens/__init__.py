"""Screens of the application and the steps of the wizard."""
