"""What a hand-tuned endpoint on the same stack could at best do: bare DRF views over a driver, no less durable.

It uses the tables and indexes that the service made, and answers what the service answers, but validates nothing, has
no middleware and no ORM, and knows no tenants, keys or errors.
"""
