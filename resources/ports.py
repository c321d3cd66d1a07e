"""Where the two web pages of an installation are, unless asked otherwise: this machine only."""

HOST = "127.0.0.1"
UI_PORT = 3000
"""Dagster (`lorascope ui`)."""
PAGES_PORT = 3030
"""Dashboards and reports (`lorascope serve`)."""
