"""The commands by subject; ``pullback.cli`` makes one program of them."""
