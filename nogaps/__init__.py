"""Fill the missing lines of 64×64 head MRIs, learnt from synthetic heads."""

__version__ = "0.1.0"
