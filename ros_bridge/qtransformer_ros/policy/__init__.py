"""What `qtransformer-policy` is made of: what it deploys, its parameters, its topics."""
