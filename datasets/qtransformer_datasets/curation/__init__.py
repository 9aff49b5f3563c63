"""The work behind the verbs of `qtransformer data`."""
