"""The network: vision encoders, causal transformer, and the Q-Transformer that joins them."""
