"""A service over a trained model: events that last, keys, splits of traffic."""
