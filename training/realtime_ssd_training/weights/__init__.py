"""Files of weights, read without running code in them."""
