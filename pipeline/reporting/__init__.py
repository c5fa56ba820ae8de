"""What people read: descriptions of runs and batches, the digest of refusals, and pages.

Decides how findings are put into words and pictures, not what was found.
"""
