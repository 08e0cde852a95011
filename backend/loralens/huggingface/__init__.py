"""A model that is not in the catalogue, found by its name on the Hugging Face Hub, when somebody asks for it.

Nothing here runs while memory is computed: a name is looked up once, on request, and its config.json is then sent like
any other. The order is catalogue, local folders, what was fetched before, and the Hub itself only when that was asked.
"""
