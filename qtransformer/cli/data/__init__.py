"""`qtransformer data VERB`: logged data, read and written in any format."""
