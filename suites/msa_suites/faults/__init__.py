"""Known faults, put into the real code and caught by the real gates.

A fault is one function: it gets the subject's code, as its worker process imported it, and makes it
wrong. The fault matrix measures such a subject as a pull request would be measured.
"""
