"""From an HTML page to its text: ``extract(source, url)``; nothing is kept between pages."""
