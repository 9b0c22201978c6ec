"""`minitx bench`: speed and memory beside what one would use instead, every contestant in a process of its own."""
