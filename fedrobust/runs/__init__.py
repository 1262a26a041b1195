"""A scenario played in a folder: start, resume, end."""
