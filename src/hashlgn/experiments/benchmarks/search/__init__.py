"""``hashlgn bench search``."""
