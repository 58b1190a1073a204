"""What holds for all tests."""

from hypothesis import settings

# An example takes as long as the machine lets it; Hypothesis would fail one that takes longer than 200 ms.
settings.register_profile("commbook", deadline=None)
settings.load_profile("commbook")
