"""The observed program of the truth bench: it stalls in known ways, for a known time, on known lines.

Standard library only (and uvloop, if asked for), CPython 3.8+.

  __main__.py   runs the stalls in random order, with healthy iterations between them, and writes the truth
  kinds.py      what blocks, and what of it is to be found
  stage.py      what the stalls need: files, locks, sockets, objects of the right size
  companion.py  another process that makes the program wait
  storage.py    the companion's slow file system
  truth.py      what is known of one stall; shared with the judge
"""
