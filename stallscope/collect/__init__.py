"""Drains observed processes into a recording."""
