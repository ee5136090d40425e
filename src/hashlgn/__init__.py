"""HashLGN: recommendations from bits."""

__version__ = "0.1.0"
