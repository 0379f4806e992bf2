"""Foreign traces, one file a format, each into the same nouns.

``recognise.ingest(path)`` finds the format by content and reads the file; ``recognise.FORMATS`` lists the formats.
The data flow is ``source`` (bytes, unpacked) -> one format's file -> the nouns.  The tracers of system calls share
three files: ``descriptors`` (what a file descriptor is), ``calls`` (what a call touched) and ``rebuild`` (from the
waits and calls of a thread to iterations and stalls).

What a source cannot support is left out and named in ``Fidelity.missing``; lines that could not be read are counted
and reported in ``Recording.notes``.  No duration is ever made up.
"""
