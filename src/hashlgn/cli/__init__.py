"""Commands and options of ``hashlgn``."""
