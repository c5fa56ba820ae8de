"""Pure functions and frozen records: drift, performance, and what to do about them."""
