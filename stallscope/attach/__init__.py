"""Gets the agent into a running process, and tells why where it cannot.

``facts`` asks the kernel about a process, ``elf`` finds the interpreter's functions in it,
``ptrace`` stops a thread and turns it aside, ``trampoline`` is the machine code it then runs,
``inject`` does this from a process of its own, ``payload`` is what arrives, and ``session`` is
the whole stay, from coming aboard to leaving.
"""
