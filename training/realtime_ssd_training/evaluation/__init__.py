"""How good a model is: its figures, its mistakes, and the pictures of both."""
