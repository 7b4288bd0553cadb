"""The problem in normal form. All that is in it is for the other compiled modules."""
