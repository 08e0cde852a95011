"""Several GPUs and their host: what of a training step each GPU holds, as objects applied from outside the walk.

`strategy` is the protocol, `sharded` what every strategy of today shares, one file each for the strategies themselves, and
`table` the names by which a recipe chooses them. Bytes are per GPU.
"""
