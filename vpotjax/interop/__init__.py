"""Other programs; each is imported inside the function that needs it."""
