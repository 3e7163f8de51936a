"""Networks and layers of other libraries, converted."""
