"""Which tensor has a size, where nobody says of what: the ledger inverted over the catalogue.

The size alone leaves some dozens of tensors of most models at some batch and length. What else the message says decides among
them: how much was allocated when the request failed is known of each of them to the byte. Each set-up speaks for its tensors, the
more the nearer it is, the more usual, and the more cards there are on which that very request would be the one that fails.
"""

from loralens.trainers.guess.search import Guessed, guessed

__all__ = ["Guessed", "guessed"]
