"""The demonstration: a corpus of fictional people, the job on it, and what came out."""
