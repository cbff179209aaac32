"""The protocol core: pure programs that both drivers, blocking and async, run. Nothing here does input or output."""
