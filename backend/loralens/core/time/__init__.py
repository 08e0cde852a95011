"""Time of a training step: what the walk counted, at rates that published runs were fitted on."""
