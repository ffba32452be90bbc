"""The options of every verb, each declared once: for Python, the command line and TOML."""
