"""Everything a user can get wrong, given to the console script case by case."""
