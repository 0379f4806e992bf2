"""Analysis: a recording in, findings out.  Pure functions; no file is read here and nothing is printed."""
