"""The generative model that supplies training images."""
