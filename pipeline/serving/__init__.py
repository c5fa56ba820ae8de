"""The champion behind HTTP, with the contract of the training rows."""
