"""Who may do what: API keys, rates, origins, sizes, proxies, log-ins; and the middleware of pages and the admin."""
