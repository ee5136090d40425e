"""Property-based tests of data: no deadline, because a busy machine is no fault of the code."""

from hypothesis import settings

settings.register_profile("data", deadline=None)
settings.load_profile("data")
