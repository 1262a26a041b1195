"""One style for all pictures: colours, sizes, formats."""
