"""What any program needs: files, checkpoints, devices, seeds, processes, errors, the Hub."""
