"""Model code of training frameworks that bring their own instead of transformers', from the same config.json."""
