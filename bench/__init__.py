"""Speed of parts against the published form or the best peer, both sides in one run: python -m bench.NAME."""
