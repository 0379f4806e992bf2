"""Gets the agent into a running process, and tells why where it cannot.

``facts`` asks the kernel about a process, ``checks`` are the reasons to refuse it, and ``diagnosis`` is all of them
for ``doctor``. ``methods`` are the ways in: ``remote_exec`` (PEP 768), ``inject`` (ptrace, from a process of its own)
and ``debugger`` (gdb). For ``inject``, ``elf`` finds the interpreter's functions, ``ptrace`` stops a thread and turns
it aside, and ``machine`` with ``x86_64`` and ``aarch64`` is the code that it then runs. ``payload`` is what arrives,
in the ``box`` that the target makes. ``session`` is a whole stay, from coming aboard to leaving, and ``tree`` those of
a process and its children.
"""
