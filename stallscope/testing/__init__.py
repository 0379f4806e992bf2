"""What the pytest plugin measures: the loops of the very process that runs the tests."""
