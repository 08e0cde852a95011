"""What a step learns from: which forward passes run, on which models, and what the loss makes of them."""
