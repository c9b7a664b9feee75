"""Access control: API keys, rate limits, origins, body sizes, proxies and log-ins.

This package also contains the middleware of pages and the admin.
"""
