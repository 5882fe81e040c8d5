"""`nogaps report`: the executed notebook as one page of HTML that needs nothing else."""
