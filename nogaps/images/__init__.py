"""The files people have: .npy, .npz, PNG and NIfTI, read and written as one `ImageSource`."""
