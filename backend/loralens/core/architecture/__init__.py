"""Model families: config.json in, a tree of modules with exact parameter shapes and a symbolic forward pass out."""
