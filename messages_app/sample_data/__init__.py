"""Sample threads for `seed`: the texts, and the generator that makes threads of them."""
