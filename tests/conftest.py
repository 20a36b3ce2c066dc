"""The same examples in every run: a test that fails by chance is not believed. FUZZ_EXAMPLES=N looks further."""

import os

from hypothesis import settings

settings.register_profile("steady", derandomize="FUZZ_EXAMPLES" not in os.environ)
settings.load_profile("steady")
