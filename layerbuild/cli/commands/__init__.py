"""One module per command, or per family of small ones; ``cli/main.py`` has the table."""
