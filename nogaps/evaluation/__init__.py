"""What a prior is worth and what an imputer is worth."""
