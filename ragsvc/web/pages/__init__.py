"""The web pages: their sources in ``source/``, what is built of them in ``static/``, and the routes that serve it."""
