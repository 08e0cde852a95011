"""What is asked: the recipe's words, the model, library versions, precisions and module patterns."""
