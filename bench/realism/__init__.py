"""Are the phantoms like real CT? See `__main__`."""
