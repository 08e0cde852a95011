"""From a trainer's own file to a recipe and back: what each key means, as data, and the answer to `loralens check`.

Files are only read as data: YAML by its events, scripts by their words, Python by its syntax tree. Nothing is executed.
"""
