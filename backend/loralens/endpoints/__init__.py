"""What each endpoint that only computes answers, without a web framework.

The server's workers and the page's own (the same functions, compiled to WebAssembly, where there is no server) ask here, so
that both give the same bytes.
"""
