"""Does a recipe fit, and how fast would it be: pure arithmetic on a model's dimensions, no torch."""
