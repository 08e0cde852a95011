"""One training step, walked or replayed: optimizer, counts, requests in their order, the caching allocator."""
