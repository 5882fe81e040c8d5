"""The page of `nogaps demo`: upload images, fill them, look at them, download them."""
