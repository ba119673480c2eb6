"""From an HTML page to its text. One class a file: Config, version, ``extract(source, url) -> str``; it keeps nothing between pages."""
