"""The database engines, and the URLs that choose them."""
