"""Who may do what: hosts, origins, sizes, and the middleware that only people (not API clients) need."""
