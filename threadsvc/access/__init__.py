"""Access control: API keys, rate limits, origins, body sizes, proxies, log-ins; and the middleware of pages and the
admin.
"""
