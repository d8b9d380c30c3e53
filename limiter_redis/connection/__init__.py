"""How bytes travel: URLs, settings, endpoints, and open connections."""
