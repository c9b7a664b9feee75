"""The texts and the generator of `seed`."""
