"""Images and volumes of any source, made into frames that the prior is trained on."""
