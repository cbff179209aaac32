"""Messages to values and back. Every error names the field of the request, so a servicer need not check twice."""
