"""Sample threads for `seed`: the texts, and the generator that builds threads from them."""
