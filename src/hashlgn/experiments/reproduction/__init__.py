"""The experiment of the paper."""
