"""Everything that fills holes. One call for all: `x_hat = imputer(y, mask)`."""
