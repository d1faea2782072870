"""What Google's emulators are known not to do. README.md has the list, with reasons."""

import os
import unittest


def not_by_googles(test):
    """Against Google's emulators (GOOGLE=1) the test is expected to fail: should it pass, the run fails."""
    return unittest.expectedFailure(test) if os.environ.get("GOOGLE") else test
