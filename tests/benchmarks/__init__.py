"""Commands that measure; never part of the test suite. Ratios against bare, interleaved in one run."""
